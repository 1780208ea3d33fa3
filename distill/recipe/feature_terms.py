"""How a recipe names the ways of learning from a teacher's features: their weights, and which stages they compare."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from distill.recipe.base import NonNegative, Positive, PositiveInt
from distill.recipe.own import OwnLoss
from distill.recipe.terms import RampEpochs, TermSpec

__all__ = [
    "ABTerm",
    "ATTerm",
    "CCTerm",
    "CRDTerm",
    "FSPTerm",
    "FTTerm",
    "FeatureTerm",
    "FitNetTerm",
    "NSTTerm",
    "OFDTerm",
    "OwnTerm",
    "PKTTerm",
    "RKDTerm",
    "ReviewKDTerm",
    "SPTerm",
    "SimKDTerm",
    "VIDTerm",
]

AutoStages = Literal["all", "stem and all", "before activations", "middle", "last", "pooled"]
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


class CCTerm(FeatureTerm):
    """cc_weight * mean square of the difference of correlations between the images of a batch (arXiv:1904.01802)."""

    auto_stages: ClassVar[AutoStages] = "pooled"
    compares_images: ClassVar[bool] = True
    kind: Literal["cc"]
    cc_weight: NonNegative = 100.0
    gamma: Positive = Field(0.4, description="of the Gaussian kernel exp(-gamma * squared distance)")
    order: Annotated[int, Field(ge=1, le=16)] = Field(2, description="of the kernel's Taylor series")


class FSPTerm(FeatureTerm):
    """fsp_weight * mean square of the difference of how channels of consecutive stages go together (CVPR 2017)."""

    auto_stages: ClassVar[AutoStages] = "stem and all"
    kind: Literal["fsp"]
    fsp_weight: NonNegative = 50.0

    @model_validator(mode="after")
    def _stages_follow_one_another(self) -> FSPTerm:
        if self.features != "auto" and len(self.features) < 2:
            raise ValueError("features: fsp relates one stage to the next, so two at least")
        return self


class ABTerm(FeatureTerm):
    """ab_weight * how far a student's neurons are from being on where its teacher's are (arXiv:1811.03233)."""

    auto_stages: ClassVar[AutoStages] = "before activations"
    kind: Literal["ab"]
    ab_weight: NonNegative = 0.003
    margin: Positive = 1.0


class OFDTerm(FeatureTerm):
    """ofd_weight * squared distance to a teacher's features where they or the student's are on (arXiv:1904.01866)."""

    auto_stages: ClassVar[AutoStages] = "before activations"
    kind: Literal["ofd"]
    ofd_weight: NonNegative = 0.001


class FTTerm(FeatureTerm):
    """ft_weight * mean difference of factors: of what a paraphraser makes of a teacher's maps (arXiv:1802.04977)."""

    auto_stages: ClassVar[AutoStages] = "last"
    kind: Literal["ft"]
    ft_weight: NonNegative = 200.0
    paraphrase_rate: Annotated[float, Field(gt=0.0, le=16.0)] = Field(
        0.5, description="channels of a factor, as a share of the teacher's"
    )
    paraphraser_epochs: PositiveInt = Field(
        30, description="in which the paraphraser learns; it teaches the student from the next one on"
    )

    @property
    def first_epoch(self) -> int:
        """Once the paraphraser has learned."""
        return max(self.from_epoch, self.paraphraser_epochs + 1)

    def after_epochs(self, epochs: int) -> Self:
        """It weighs nothing: what trains on has no paraphraser, and seldom the epochs for another."""
        return super().after_epochs(epochs).model_copy(update={"ft_weight": 0.0})


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
