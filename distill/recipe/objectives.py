"""How a recipe names what a step minimises: one main objective, and terms added to it. Weights are the papers'."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from distill.recipe.base import NonNegative, PositiveInt, Spec
from distill.recipe.feature_terms import (
    ABTerm,
    ATTerm,
    CCTerm,
    CRDTerm,
    FeatureTerm,
    FitNetTerm,
    FSPTerm,
    FTTerm,
    NSTTerm,
    OFDTerm,
    OwnTerm,
    PKTTerm,
    ReviewKDTerm,
    RKDTerm,
    SimKDTerm,
    SPTerm,
    VIDTerm,
)
from distill.recipe.own import OwnLoss
from distill.recipe.terms import (
    CTKDTerm,
    DISTTerm,
    DKDTerm,
    KDTerm,
    MLKDTerm,
    MSETerm,
    NKDTerm,
    TermSpec,
    TTMTerm,
)

__all__ = [
    "KINDS_WITHOUT_TEACHER",
    "ABTerm",
    "ATTerm",
    "AddedTerm",
    "CCTerm",
    "CRDTerm",
    "CTKDTerm",
    "ClassWeights",
    "DISTObjective",
    "DISTTerm",
    "DKDObjective",
    "DKDTerm",
    "FSPTerm",
    "FTTerm",
    "FeatureTerm",
    "FitNetTerm",
    "KDObjective",
    "KDTerm",
    "MLKDObjective",
    "MLKDTerm",
    "MSEObjective",
    "MSETerm",
    "NKDObjective",
    "NKDTerm",
    "NSTTerm",
    "OFDTerm",
    "ObjectiveSpec",
    "OwnLabelsObjective",
    "OwnObjective",
    "OwnTerm",
    "PKTTerm",
    "RKDTerm",
    "ReviewKDTerm",
    "SPTerm",
    "SimKDTerm",
    "SupervisedObjective",
    "TTMObjective",
    "TTMTerm",
    "TaughtObjective",
    "TermSpec",
    "VIDTerm",
]


AddedTerm = Annotated[
    KDTerm
    | DKDTerm
    | DISTTerm
    | MSETerm
    | NKDTerm
    | MLKDTerm
    | TTMTerm
    | CTKDTerm
    | FitNetTerm
    | ATTerm
    | NSTTerm
    | FSPTerm
    | ABTerm
    | OFDTerm
    | FTTerm
    | SPTerm
    | RKDTerm
    | PKTTerm
    | CCTerm
    | VIDTerm
    | CRDTerm
    | ReviewKDTerm
    | OwnTerm,
    Field(discriminator="kind"),
]


ClassWeights = Annotated[tuple[NonNegative, ...], Field(min_length=1)] | Literal["balanced"] | None
_CLASS_WEIGHTS = "what an image counts in the cross-entropy, by class in their order; balanced: rare classes more"


def _weighs_something(weights: ClassWeights) -> ClassWeights:
    if isinstance(weights, tuple) and not any(weights):
        raise ValueError("class_weights: at least one above 0")
    return weights


def _refuse_odd_schedules(terms: Sequence[TermSpec], *, ce_weight: float, ce_from_epoch: int) -> None:
    """A ramp beyond a term's end, an end before its beginning, or an epoch in which nothing is learned."""
    for term in terms:
        if term.until_epoch is not None and term.ramp_epochs > term.until_epoch:
            raise ValueError(f"{term.kind}: ramp_epochs {term.ramp_epochs} goes beyond until_epoch")
        if term.until_epoch is not None and term.first_epoch > term.until_epoch:
            raise ValueError(f"{term.kind} teaches from epoch {term.first_epoch} on: until_epoch is {term.until_epoch}")
    weighing = [(term.first_epoch, term.until_epoch or math.inf) for term in terms if term.weighs]
    if ce_weight > 0:
        weighing.append((ce_from_epoch, math.inf))
    if not weighing:
        raise ValueError("every weight is 0: nothing is learned")
    idle: float = 1
    for begins, ends in sorted(weighing):
        if begins > idle:
            raise ValueError(
                f"nothing is learned in epoch {idle:.0f}: from_epoch, until_epoch and ce_from_epoch leave it out"
            )
        idle = max(idle, ends + 1)
    if idle < math.inf:
        raise ValueError("until_epoch: ce_weight is 0, so nothing is learned once the last term has ended")


class SupervisedObjective(Spec):
    """Cross-entropy with the labels."""

    asks_teacher: ClassVar[bool] = False
    kind: Literal["supervised"] = "supervised"
    class_weights: ClassWeights = Field(None, description=_CLASS_WEIGHTS)

    _weighs = field_validator("class_weights")(_weighs_something)

    @property
    def title(self) -> str:
        """What a table calls it."""
        return self.kind

    @property
    def terms(self) -> tuple[TermSpec, ...]:
        """None."""
        return ()

    def after_epochs(self, epochs: int) -> Self:
        """Itself: it has neither ramp nor end."""
        return self


class TaughtObjective(TermSpec):
    """ce_weight * CE(labels), a term of its kind, and what ``add`` adds."""

    ce_weight: NonNegative = 1.0
    ce_from_epoch: PositiveInt = Field(1, description="the first epoch in which the cross-entropy takes part")
    class_weights: ClassWeights = Field(None, description=_CLASS_WEIGHTS)
    add: tuple[AddedTerm, ...] = Field((), description="more terms, each of another kind, with weights of its own")

    _weighs = field_validator("class_weights")(_weighs_something)

    @property
    def title(self) -> str:
        """What a table calls it, and what is added to it: ``kd+at``."""
        return "+".join(term.method for term in self.terms)

    @property
    def terms(self) -> tuple[TermSpec, ...]:
        """Its own and those added."""
        return (self, *self.add)

    def after_epochs(self, epochs: int) -> Self:
        """For training on after ``epochs`` epochs, each term."""
        add = tuple(term.after_epochs(epochs) for term in self.add)
        return super().after_epochs(epochs).model_copy(update={"add": add, "ce_from_epoch": 1})

    @model_validator(mode="after")
    def _something_is_always_learned(self) -> TaughtObjective:
        kinds = [self.kind, *(term.kind for term in self.add)]
        if twice := {kind for kind in kinds if kinds.count(kind) > 1}:
            raise ValueError(f"add: {', '.join(sorted(twice))} is there twice; each kind once")
        _refuse_odd_schedules(self.terms, ce_weight=self.ce_weight, ce_from_epoch=self.ce_from_epoch)
        if self.class_weights is not None and self.ce_weight == 0:
            raise ValueError("class_weights weighs the cross-entropy, and ce_weight is 0")
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


class NKDObjective(NKDTerm, TaughtObjective):
    """Cross-entropy, a teacher's certainty of the target class, and its other classes (arXiv:2303.13005)."""


class MLKDObjective(MLKDTerm, TaughtObjective):
    """Cross-entropy, and a teacher's logits by image, by pairs of images and by pairs of classes (CVPR 2023)."""

    ce_weight: NonNegative = 0.1


class TTMObjective(TTMTerm, TaughtObjective):
    """Cross-entropy, and a softened teacher for the student as it is (arXiv:2402.11148)."""


class CTKDObjective(CTKDTerm, TaughtObjective):
    """Cross-entropy, and a teacher at a temperature that makes the task harder by and by (arXiv:2211.16231)."""

    ce_weight: NonNegative = 0.1


class FitNetObjective(FitNetTerm, TaughtObjective):
    """Cross-entropy, and a teacher's features themselves (arXiv:1412.6550)."""


class VIDObjective(VIDTerm, TaughtObjective):
    """Cross-entropy, and what a student's features tell of its teacher's (arXiv:1904.05835)."""


class CRDObjective(CRDTerm, TaughtObjective):
    """Cross-entropy, and what makes an image another than the rest to a teacher (arXiv:1910.10699)."""


class ReviewKDObjective(ReviewKDTerm, TaughtObjective):
    """Cross-entropy, and a teacher's early features learned by a student's later ones (arXiv:2104.09044)."""


class SimKDObjective(SimKDTerm, TaughtObjective):
    """A teacher's classifier, reused behind a projector, and the features that enter it (arXiv:2203.14001)."""

    ce_weight: NonNegative = 0.0


class ATObjective(ATTerm, TaughtObjective):
    """Cross-entropy, and where a teacher's maps are strong (arXiv:1612.03928)."""


class NSTObjective(NSTTerm, TaughtObjective):
    """Cross-entropy, and how a teacher's channels are distributed (arXiv:1707.01219)."""


class SPObjective(SPTerm, TaughtObjective):
    """Cross-entropy, and which images of a batch a teacher finds alike (arXiv:1907.09682)."""


class RKDObjective(RKDTerm, TaughtObjective):
    """Cross-entropy, and how a teacher's features of a batch lie to one another (arXiv:1904.05068)."""


class PKTObjective(PKTTerm, TaughtObjective):
    """Cross-entropy, and which images are neighbours to a teacher (arXiv:1803.10837)."""


class CCObjective(CCTerm, TaughtObjective):
    """Cross-entropy, and how a teacher's features of a batch correlate (arXiv:1904.01802)."""


class FSPObjective(FSPTerm, TaughtObjective):
    """Cross-entropy, and how a teacher's maps flow from stage to stage (CVPR 2017)."""


class ABObjective(ABTerm, TaughtObjective):
    """Cross-entropy, and which of a teacher's neurons are on (arXiv:1811.03233)."""


class OFDObjective(OFDTerm, TaughtObjective):
    """Cross-entropy, and a teacher's features before their activation (arXiv:1904.01866)."""


class FTObjective(FTTerm, TaughtObjective):
    """Cross-entropy, and the factors of a teacher's last maps (arXiv:1802.04977)."""


class OwnObjective(OwnTerm, TaughtObjective):
    """Cross-entropy, and a loss of one's own that knows a teacher's answers."""


class OwnLabelsObjective(OwnLoss, TermSpec):
    """A loss of one's own of logits and labels, without a teacher; cross-entropy where ``ce_weight`` says so."""

    asks_teacher: ClassVar[bool] = False
    kind: Literal["python_labels"]
    ce_weight: NonNegative = 0.0
    ce_from_epoch: PositiveInt = Field(1, description="the first epoch in which the cross-entropy takes part")
    class_weights: ClassWeights = Field(None, description=_CLASS_WEIGHTS)

    _weighs = field_validator("class_weights")(_weighs_something)

    @property
    def title(self) -> str:
        """What a table calls it: ``python_labels:my_loss``."""
        return f"{self.kind}:{self.called}"

    @property
    def terms(self) -> tuple[TermSpec, ...]:
        """Itself."""
        return (self,)

    @model_validator(mode="after")
    def _something_is_always_learned(self) -> OwnLabelsObjective:
        if self.ce_weight == 0 and (self.class_weights is not None or self.until_epoch is not None):
            raise ValueError("class_weights and until_epoch need a cross-entropy: ce_weight is 0")
        _refuse_odd_schedules([self], ce_weight=self.ce_weight, ce_from_epoch=self.ce_from_epoch)
        return self


ObjectiveSpec = Annotated[
    SupervisedObjective
    | KDObjective
    | DKDObjective
    | DISTObjective
    | MSEObjective
    | NKDObjective
    | MLKDObjective
    | TTMObjective
    | CTKDObjective
    | FitNetObjective
    | ATObjective
    | NSTObjective
    | FSPObjective
    | ABObjective
    | OFDObjective
    | FTObjective
    | SPObjective
    | RKDObjective
    | PKTObjective
    | CCObjective
    | VIDObjective
    | CRDObjective
    | ReviewKDObjective
    | SimKDObjective
    | OwnObjective
    | OwnLabelsObjective,
    Field(discriminator="kind"),
]
KINDS_WITHOUT_TEACHER = tuple(
    kind
    for spec in get_args(get_args(ObjectiveSpec)[0])
    for kind in get_args(spec.model_fields["kind"].annotation)
    if not spec.asks_teacher
)
