"""How a recipe names what a step minimises: one main objective, and terms added to it. Weights are the papers'."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field, field_validator, model_validator

from distill.recipe.base import NonNegative, Positive, PositiveInt, Spec

__all__ = [
    "KINDS_WITHOUT_TEACHER",
    "ATTerm",
    "AddedTerm",
    "CRDTerm",
    "ClassWeights",
    "DISTObjective",
    "DISTTerm",
    "DKDObjective",
    "DKDTerm",
    "FeatureTerm",
    "FitNetTerm",
    "KDObjective",
    "KDTerm",
    "MSEObjective",
    "MSETerm",
    "ObjectiveSpec",
    "PKTTerm",
    "RKDTerm",
    "ReviewKDTerm",
    "SPTerm",
    "SimKDTerm",
    "SupervisedObjective",
    "TaughtObjective",
    "TermSpec",
    "VIDTerm",
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


StageName = Annotated[str, Field(pattern=r"^(stem|stage[1-9][0-9]?|pooled)$")]


class FeatureTerm(TermSpec):
    """What is learned from a teacher's features; ``auto`` names the stages that its paper takes."""

    features: Annotated[tuple[StageName, ...], Field(min_length=1)] | Literal["auto"] = Field(
        "auto", description="stages of the student: stem, stage1 ... or pooled (distill models NAME lists them)"
    )
    teacher_features: Annotated[tuple[StageName, ...], Field(min_length=1)] | None = Field(
        None, description="the teacher's stages in their places; null: those of the same names"
    )
    auto_stages: ClassVar[Literal["all", "middle", "last", "pooled"]] = "all"

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
    def needs_maps(self) -> bool:
        """Whether it asks the teacher for more than ``pooled``: a bank has no maps."""
        if self.features == "auto":
            return self.auto_stages != "pooled"
        return any(name != "pooled" for name in self.teacher_features or self.features)


class ATTerm(FeatureTerm):
    """at_weight * mean square of the difference of attention maps, summed over stages (arXiv:1612.03928)."""

    kind: Literal["at"]
    at_weight: NonNegative = 1000.0


class SPTerm(FeatureTerm):
    """sp_weight * mean square of the difference of similarities between the images of a batch (arXiv:1907.09682)."""

    auto_stages: ClassVar[Literal["all", "middle", "last", "pooled"]] = "last"
    kind: Literal["sp"]
    sp_weight: NonNegative = 3000.0


class RKDTerm(FeatureTerm):
    """distance_weight * distances between images + angle_weight * angles among three (arXiv:1904.05068)."""

    auto_stages: ClassVar[Literal["all", "middle", "last", "pooled"]] = "pooled"
    kind: Literal["rkd"]
    distance_weight: NonNegative = 25.0
    angle_weight: NonNegative = 50.0


class PKTTerm(FeatureTerm):
    """pkt_weight * divergence of the probabilities that images are neighbours (arXiv:1803.10837)."""

    auto_stages: ClassVar[Literal["all", "middle", "last", "pooled"]] = "pooled"
    kind: Literal["pkt"]
    pkt_weight: NonNegative = 30000.0


class FitNetTerm(FeatureTerm):
    """fitnet_weight * mean square of regressor(student) - teacher, of features (arXiv:1412.6550)."""

    auto_stages: ClassVar[Literal["all", "middle", "last", "pooled"]] = "middle"
    kind: Literal["fitnet"]
    fitnet_weight: NonNegative = 100.0


class VIDTerm(FeatureTerm):
    """vid_weight * how little the student's features tell of the teacher's, summed over stages (arXiv:1904.05835)."""

    kind: Literal["vid"]
    vid_weight: NonNegative = 1.0


class CRDTerm(FeatureTerm):
    """crd_weight * telling an image from others by the other network's memory of them (arXiv:1910.10699)."""

    auto_stages: ClassVar[Literal["all", "middle", "last", "pooled"]] = "pooled"
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
    ramp_epochs: Annotated[int, Field(ge=0, le=100_000)] = Field(
        20, description="its weights grow linearly, and are whole in the epoch of this number; 0: from the start"
    )


class SimKDTerm(FeatureTerm):
    """simkd_weight * mean square of the difference of projected features (arXiv:2203.14001)."""

    auto_stages: ClassVar[Literal["all", "middle", "last", "pooled"]] = "last"
    kind: Literal["simkd"]
    simkd_weight: NonNegative = 1.0


AddedTerm = Annotated[
    KDTerm
    | DKDTerm
    | DISTTerm
    | MSETerm
    | FitNetTerm
    | ATTerm
    | SPTerm
    | RKDTerm
    | PKTTerm
    | VIDTerm
    | CRDTerm
    | ReviewKDTerm,
    Field(discriminator="kind"),
]


ClassWeights = Annotated[tuple[NonNegative, ...], Field(min_length=1)] | Literal["balanced"] | None
_CLASS_WEIGHTS = "what an image counts in the cross-entropy, by class in their order; balanced: rare classes more"


def _weighs_something(weights: ClassWeights) -> ClassWeights:
    if isinstance(weights, tuple) and not any(weights):
        raise ValueError("class_weights: at least one above 0")
    return weights


class SupervisedObjective(Spec):
    """Cross-entropy with the labels."""

    asks_teacher: ClassVar[bool] = False
    kind: Literal["supervised"] = "supervised"
    class_weights: ClassWeights = Field(None, description=_CLASS_WEIGHTS)

    _weighs = field_validator("class_weights")(_weighs_something)


class TaughtObjective(TermSpec):
    """ce_weight * CE(labels), a term of its kind, and what ``add`` adds."""

    ce_weight: NonNegative = 1.0
    class_weights: ClassWeights = Field(None, description=_CLASS_WEIGHTS)
    add: tuple[AddedTerm, ...] = Field((), description="more terms, each of another kind, with weights of its own")

    _weighs = field_validator("class_weights")(_weighs_something)

    @property
    def terms(self) -> tuple[TermSpec, ...]:
        """Its own and those added."""
        return (self, *self.add)

    @model_validator(mode="after")
    def _something_is_always_learned(self) -> TaughtObjective:
        kinds = [self.kind, *(term.kind for term in self.add)]
        if twice := {kind for kind in kinds if kinds.count(kind) > 1}:
            raise ValueError(f"add: {', '.join(sorted(twice))} is there twice; each kind once")
        for term in (self, *self.add):
            if term.until_epoch is not None and term.ramp_epochs > term.until_epoch:
                raise ValueError(f"{term.kind}: ramp_epochs {term.ramp_epochs} goes beyond until_epoch")
        if self.class_weights is not None and self.ce_weight == 0:
            raise ValueError("class_weights weighs the cross-entropy, and ce_weight is 0")
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


class SPObjective(SPTerm, TaughtObjective):
    """Cross-entropy, and which images of a batch a teacher finds alike (arXiv:1907.09682)."""


class RKDObjective(RKDTerm, TaughtObjective):
    """Cross-entropy, and how a teacher's features of a batch lie to one another (arXiv:1904.05068)."""


class PKTObjective(PKTTerm, TaughtObjective):
    """Cross-entropy, and which images are neighbours to a teacher (arXiv:1803.10837)."""


ObjectiveSpec = Annotated[
    SupervisedObjective
    | KDObjective
    | DKDObjective
    | DISTObjective
    | MSEObjective
    | FitNetObjective
    | ATObjective
    | SPObjective
    | RKDObjective
    | PKTObjective
    | VIDObjective
    | CRDObjective
    | ReviewKDObjective
    | SimKDObjective,
    Field(discriminator="kind"),
]
KINDS_WITHOUT_TEACHER = tuple(
    kind
    for spec in get_args(get_args(ObjectiveSpec)[0])
    for kind in get_args(spec.model_fields["kind"].annotation)
    if not spec.asks_teacher
)
