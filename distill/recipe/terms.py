"""How a recipe names the ways of learning from a teacher: what each one is weighed by, and what it asks for."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from distill.recipe.base import NonNegative, Positive, PositiveInt, Spec
from distill.recipe.own import OwnLoss

__all__ = [
    "ATTerm",
    "CRDTerm",
    "DISTTerm",
    "DKDTerm",
    "FeatureTerm",
    "FitNetTerm",
    "KDTerm",
    "MSETerm",
    "NSTTerm",
    "OwnTerm",
    "PKTTerm",
    "RKDTerm",
    "ReviewKDTerm",
    "SPTerm",
    "SimKDTerm",
    "TermSpec",
    "VIDTerm",
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
    until_epoch: PositiveInt | None = Field(None, description="the last epoch that it takes part in; null: to the end")

    @property
    def method(self) -> str:
        """What a table calls it: its kind, and of one's own code what it is called there."""
        return self.kind

    def after_epochs(self, epochs: int) -> Self:
        """For training on after ``epochs`` epochs: its ramp is over, and where it had ended it weighs nothing."""
        ended = self.until_epoch is not None and self.until_epoch <= epochs
        off = dict.fromkeys(self._weights(), 0.0) if ended else {}
        return self.model_copy(update={"ramp_epochs": 0, "until_epoch": None, **off})

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


AutoStages = Literal["all", "middle", "last", "pooled"]
PREACT = ".preact"
"""Behind a stage's name: what enters the activation that it ends in."""
STAGE_PATTERN = r"^((stem|stage[1-9][0-9]?)(\.preact)?|pooled)$"
StageName = Annotated[str, Field(pattern=STAGE_PATTERN)]


class FeatureTerm(TermSpec):
    """What is learned from a teacher's features; ``auto`` names the stages that its paper takes."""

    features: Annotated[tuple[StageName, ...], Field(min_length=1)] | Literal["auto"] = Field(
        "auto",
        description="stages of the student: stem, stage1 ... or pooled (distill models NAME lists them); "
        "stage1.preact: before its last activation",
    )
    teacher_features: Annotated[tuple[StageName, ...], Field(min_length=1)] | None = Field(
        None, description="the teacher's stages in their places; null: those of the same names"
    )
    auto_stages: ClassVar[AutoStages] = "all"

    @model_validator(mode="after")
    def _stages_are_pairs(self) -> FeatureTerm:
        if self.features == "auto":
            if self.teacher_features is not None:
                raise ValueError("teacher_features needs features: which stage of the student each one is for")
            return self
        if len(set(self.features)) < len(self.features):
            raise ValueError("features: each stage once")
        if self.teacher_features is not None and len(self.teacher_features) != len(self.features):
            raise ValueError(f"teacher_features has {len(self.teacher_features)} stages, features {len(self.features)}")
        return self

    @property
    def asks_features(self) -> bool:
        """Always."""
        return True

    @property
    def needs_maps(self) -> bool:
        """Whether it asks the teacher for more than ``pooled``: a bank has no maps."""
        if self.features == "auto":
            return self.auto_stages != "pooled"
        return any(name != "pooled" for name in self.teacher_features or self.features)


class ATTerm(FeatureTerm):
    """at_weight * mean square of the difference of attention maps, summed over stages (arXiv:1612.03928)."""

    kind: Literal["at"]
    at_weight: NonNegative = 1000.0


class NSTTerm(FeatureTerm):
    """nst_weight * squared discrepancy of how channels' maps are distributed, summed over stages (arXiv:1707.01219)."""

    kind: Literal["nst"]
    nst_weight: NonNegative = 50.0


class SPTerm(FeatureTerm):
    """sp_weight * mean square of the difference of similarities between the images of a batch (arXiv:1907.09682)."""

    auto_stages: ClassVar[AutoStages] = "last"
    compares_images: ClassVar[bool] = True
    kind: Literal["sp"]
    sp_weight: NonNegative = 3000.0


class RKDTerm(FeatureTerm):
    """distance_weight * distances between images + angle_weight * angles among three (arXiv:1904.05068)."""

    auto_stages: ClassVar[AutoStages] = "pooled"
    compares_images: ClassVar[bool] = True
    kind: Literal["rkd"]
    distance_weight: NonNegative = 25.0
    angle_weight: NonNegative = 50.0


class PKTTerm(FeatureTerm):
    """pkt_weight * divergence of the probabilities that images are neighbours (arXiv:1803.10837)."""

    auto_stages: ClassVar[AutoStages] = "pooled"
    compares_images: ClassVar[bool] = True
    kind: Literal["pkt"]
    pkt_weight: NonNegative = 30000.0


class FitNetTerm(FeatureTerm):
    """fitnet_weight * mean square of regressor(student) - teacher, of features (arXiv:1412.6550)."""

    auto_stages: ClassVar[AutoStages] = "middle"
    kind: Literal["fitnet"]
    fitnet_weight: NonNegative = 100.0


class VIDTerm(FeatureTerm):
    """vid_weight * how little the student's features tell of the teacher's, summed over stages (arXiv:1904.05835)."""

    kind: Literal["vid"]
    vid_weight: NonNegative = 1.0


class CRDTerm(FeatureTerm):
    """crd_weight * telling an image from others by the other network's memory of them (arXiv:1910.10699)."""

    auto_stages: ClassVar[AutoStages] = "pooled"
    asks_labels: ClassVar[bool] = True
    tells_images_apart: ClassVar[bool] = True
    kind: Literal["crd"]
    crd_weight: NonNegative = 0.8
    dimensions: Annotated[int, Field(ge=1, le=8192)] = Field(128, description="of an embedding")
    negatives: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        16384, description="images of other classes that each one is compared with"
    )
    temperature: Positive = 0.07
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.5, description="share of a memory that is kept")


class ReviewKDTerm(FeatureTerm):
    """reviewkd_weight * differences at several sizes, later stages fused into earlier ones (arXiv:2104.09044)."""

    kind: Literal["reviewkd"]
    reviewkd_weight: NonNegative = 1.0
    ramp_epochs: RampEpochs = 20


class SimKDTerm(FeatureTerm):
    """simkd_weight * mean square of the difference of projected features (arXiv:2203.14001)."""

    auto_stages: ClassVar[AutoStages] = "last"
    kind: Literal["simkd"]
    simkd_weight: NonNegative = 1.0


class OwnTerm(OwnLoss, TermSpec):
    """own_weight * a function of one's own: of both networks' logits, of labels, of features."""

    kind: Literal["python"]
    features: tuple[StageName, ...] = Field((), description="stages that it is given")
    teacher_features: Annotated[tuple[StageName, ...], Field(min_length=1)] | None = Field(
        None, description="the teacher's stages that it is given; null: those of the same names"
    )

    @property
    def method(self) -> str:
        """``python:my_loss``."""
        return f"{self.kind}:{self.called}"

    @property
    def teacher_stages(self) -> tuple[str, ...]:
        """The teacher's stages that it is given."""
        return self.teacher_features or self.features

    @property
    def asks_features(self) -> bool:
        """Where it names some."""
        return bool(self.teacher_stages)

    @property
    def needs_maps(self) -> bool:
        """Whether it asks the teacher for more than ``pooled``: a bank has no maps."""
        return any(name != "pooled" for name in self.teacher_stages)
