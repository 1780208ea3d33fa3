"""How a recipe names what a step minimises: one main objective, and terms added to it. Weights are the papers'."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field, model_validator

from distill.recipe.base import NonNegative, Positive, PositiveInt, Spec

__all__ = [
    "KINDS_WITHOUT_TEACHER",
    "AddedTerm",
    "DISTObjective",
    "DISTTerm",
    "DKDObjective",
    "DKDTerm",
    "KDObjective",
    "KDTerm",
    "MSEObjective",
    "MSETerm",
    "ObjectiveSpec",
    "SupervisedObjective",
    "TaughtObjective",
    "TermSpec",
]


class TermSpec(Spec):
    """What is learned from a teacher in one way; its weights are named ``*_weight``."""

    asks_teacher: ClassVar[bool] = True
    kind: str
    ramp_epochs: Annotated[int, Field(ge=0, le=100_000)] = Field(
        0, description="its weights grow linearly, and are whole in the epoch of this number; 0: from the start"
    )
    until_epoch: PositiveInt | None = Field(None, description="the last epoch that it takes part in; null: to the end")


class _Standardized(TermSpec):
    standardize: bool = Field(False, description="z-score the logits of both first (arXiv:2403.01427)")


class KDTerm(_Standardized):
    """kd_weight * T^2 * KL(teacher || student) (arXiv:1503.02531)."""

    kind: Literal["kd"]
    kd_weight: NonNegative = 0.9
    temperature: Positive = 4.0


class DKDTerm(_Standardized):
    """T^2 * (tckd_weight * KL of the target class + nckd_weight * KL among the others) (arXiv:2203.08679)."""

    kind: Literal["dkd"]
    tckd_weight: NonNegative = 1.0
    nckd_weight: NonNegative = 8.0
    temperature: Positive = 4.0
    ramp_epochs: Annotated[int, Field(ge=0, le=100_000)] = Field(
        20, description="its weights grow linearly, and are whole in the epoch of this number; 0: from the start"
    )


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


AddedTerm = Annotated[KDTerm | DKDTerm | DISTTerm | MSETerm, Field(discriminator="kind")]


class SupervisedObjective(Spec):
    """Cross-entropy with the labels."""

    asks_teacher: ClassVar[bool] = False
    kind: Literal["supervised"] = "supervised"


class TaughtObjective(TermSpec):
    """ce_weight * CE(labels), a term of its kind, and what ``add`` adds."""

    ce_weight: NonNegative = 1.0
    add: tuple[AddedTerm, ...] = Field((), description="more terms, each of another kind, with weights of its own")

    @model_validator(mode="after")
    def _something_is_always_learned(self) -> TaughtObjective:
        kinds = [self.kind, *(term.kind for term in self.add)]
        if twice := {kind for kind in kinds if kinds.count(kind) > 1}:
            raise ValueError(f"add: {', '.join(sorted(twice))} is there twice; each kind once")
        for term in (self, *self.add):
            if term.until_epoch is not None and term.ramp_epochs > term.until_epoch:
                raise ValueError(f"{term.kind}: ramp_epochs {term.ramp_epochs} goes beyond until_epoch")
        ends = [term.until_epoch for term in (self, *self.add)]
        if self.ce_weight == 0 and None not in ends:
            raise ValueError("until_epoch: ce_weight is 0, so nothing is learned once the last term has ended")
        return self


class KDObjective(KDTerm, TaughtObjective):
    """ce_weight * CE + kd_weight * T^2 * KL(teacher || student) (arXiv:1503.02531)."""

    ce_weight: NonNegative = 0.1


class DKDObjective(DKDTerm, TaughtObjective):
    """Cross-entropy, and a teacher's target class and other classes apart (arXiv:2203.08679)."""


class DISTObjective(DISTTerm, TaughtObjective):
    """Cross-entropy, and the correlation with a teacher's classes, by image and by class (arXiv:2205.10536)."""


class MSEObjective(MSETerm, TaughtObjective):
    """Regression of a teacher's logits (arXiv:1312.6184); labels take part where ``ce_weight`` says so."""

    ce_weight: NonNegative = 0.0


ObjectiveSpec = Annotated[
    SupervisedObjective | KDObjective | DKDObjective | DISTObjective | MSEObjective, Field(discriminator="kind")
]
KINDS_WITHOUT_TEACHER = tuple(
    kind
    for spec in get_args(get_args(ObjectiveSpec)[0])
    for kind in get_args(spec.model_fields["kind"].annotation)
    if not spec.asks_teacher
)
