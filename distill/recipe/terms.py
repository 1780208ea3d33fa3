"""How a recipe names the ways of learning from a teacher's logits: what each one is weighed by, and what it asks."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from distill.recipe.base import NonNegative, Positive, PositiveInt, Spec

__all__ = [
    "CTKDTerm",
    "DISTTerm",
    "DKDTerm",
    "KDTerm",
    "MLKDTerm",
    "MSETerm",
    "NKDTerm",
    "RampEpochs",
    "TTMTerm",
    "TermSpec",
]


RampEpochs = Annotated[
    int,
    Field(
        ge=0,
        le=100_000,
        description="its weights grow linearly, and are whole in the epoch of this number; 0: from the start",
    ),
]


class TermSpec(Spec):
    """What is learned from a teacher in one way; its weights are named ``*_weight``.

    Attributes:
        asks_labels: It needs the label of every image: none can be without.
        compares_images: It relates the images of a batch: one alone says nothing.
        tells_images_apart: Each image is one of its own: none can be mixed.
    """

    asks_teacher: ClassVar[bool] = True
    asks_labels: ClassVar[bool] = False
    compares_images: ClassVar[bool] = False
    tells_images_apart: ClassVar[bool] = False
    kind: str
    ramp_epochs: RampEpochs = 0
    from_epoch: PositiveInt = Field(1, description="the first epoch that it takes part in")
    until_epoch: PositiveInt | None = Field(None, description="the last epoch that it takes part in; null: to the end")

    @property
    def method(self) -> str:
        """What a table calls it: its kind, and of one's own code what it is called there."""
        return self.kind

    @property
    def first_epoch(self) -> int:
        """The first one in which it teaches the student."""
        return self.from_epoch

    def after_epochs(self, epochs: int) -> Self:
        """For training on after ``epochs`` epochs: its ramp is over, and where it had ended it weighs nothing."""
        ended = self.until_epoch is not None and self.until_epoch <= epochs
        off = dict.fromkeys(self._weights(), 0.0) if ended else {}
        return self.model_copy(update={"ramp_epochs": 0, "from_epoch": 1, "until_epoch": None, **off})

    @classmethod
    def _weights(cls) -> tuple[str, ...]:
        """The names of its own; the cross-entropy's is not one of a term's."""
        return tuple(name for name in cls.model_fields if name.endswith("_weight") and name != "ce_weight")

    @property
    def weighs(self) -> bool:
        """Whether any of its weights is above 0; the cross-entropy's is not one of a term's."""
        return any(getattr(self, name) > 0 for name in self._weights())

    @property
    def asks_features(self) -> bool:
        """Whether it asks for more than logits."""
        return False

    @property
    def needs_maps(self) -> bool:
        """Whether it asks the teacher for more than ``pooled``: a bank has no maps."""
        return False


class _Standardized(TermSpec):
    standardize: bool = Field(
        False, description="z-score the logits of both first (arXiv:2403.01427, with temperature 2 and kd_weight 9)"
    )


class KDTerm(_Standardized):
    """kd_weight * T^2 * KL(teacher || student) (arXiv:1503.02531)."""

    kind: Literal["kd"]
    kd_weight: NonNegative = 0.9
    temperature: Positive = 4.0


class DKDTerm(_Standardized):
    """T^2 * (tckd_weight * KL of the target class + nckd_weight * KL among the others) (arXiv:2203.08679)."""

    asks_labels: ClassVar[bool] = True
    kind: Literal["dkd"]
    tckd_weight: NonNegative = 1.0
    nckd_weight: NonNegative = 8.0
    temperature: Positive = 4.0
    ramp_epochs: RampEpochs = 20


class DISTTerm(_Standardized):
    """T^2 * (inter_weight * (1 - r of each image) + intra_weight * (1 - r of each class)) (arXiv:2205.10536)."""

    kind: Literal["dist"]
    inter_weight: NonNegative = 2.0
    intra_weight: NonNegative = 2.0
    temperature: Positive = 1.0


class MSETerm(_Standardized):
    """mse_weight * mean square of the difference of logits (arXiv:1312.6184)."""

    kind: Literal["mse"]
    mse_weight: NonNegative = 1.0


class NKDTerm(_Standardized):
    """target_weight * -t log s of the target class + others_weight * T^2 * CE among the others (arXiv:2303.13005)."""

    asks_labels: ClassVar[bool] = True
    kind: Literal["nkd"]
    target_weight: NonNegative = 1.0
    others_weight: NonNegative = 1.5
    temperature: Positive = Field(1.0, description="of the other classes alone")


class MLKDTerm(_Standardized):
    """Sum over temperatures of KL by image, and of what pairs of images and of classes differ in (CVPR 2023)."""

    kind: Literal["mlkd"]
    instance_level_weight: NonNegative = 0.9
    batch_level_weight: NonNegative = 0.9
    class_level_weight: NonNegative = 0.9
    temperatures: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=16)] = (2.0, 3.0, 4.0, 5.0, 6.0)


class TTMTerm(_Standardized):
    """ttm_weight * divergence from a teacher, softened, to the student as it is (arXiv:2402.11148)."""

    kind: Literal["ttm"]
    ttm_weight: NonNegative = 45.0
    temperature: Positive = Field(10.0, description="of the teacher alone; the paper's exponent is 1 / temperature")
    weighted: bool = Field(False, description="WTTM: an image counts more, the less sure its teacher is")


class CTKDTerm(_Standardized):
    """kd_weight * T^2 * KL at a temperature that is learned, against the student (arXiv:2211.16231)."""

    kind: Literal["ctkd"]
    kd_weight: NonNegative = 0.9
    lowest_temperature: Positive = 1.0
    highest_temperature: Positive = 21.0
    curriculum_epochs: Annotated[int, Field(ge=0, le=100_000)] = Field(
        10, description="until the temperature learns against the student with whole strength; 0: from the start"
    )

    @model_validator(mode="after")
    def _temperatures_are_a_range(self) -> Self:
        if self.lowest_temperature >= self.highest_temperature:
            raise ValueError("lowest_temperature must be below highest_temperature")
        return self
