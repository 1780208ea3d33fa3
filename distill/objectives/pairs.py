"""Which stage of the student learns from which of the teacher, and features as losses compare them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.errors import RecipeError
from distill.objectives.objective import NetworkOutput, RequiredOutputs, TermContext
from distill.recipe.feature_terms import PREACT
from distill.recipe.objectives import FeatureTerm, OwnTerm

__all__ = ["StagePairs", "as_small", "no_autocast", "require_maps", "stage_shape"]

Shapes = Mapping[str, tuple[int, ...]]


class StagePairs:
    """Stages of the student and of the teacher, by twos.

    Attributes:
        names: ``(the student's, the teacher's)``, at least one.
        shapes: Of each, without the batch.

    Raises:
        RecipeError: A network has no such stage.
    """

    def __init__(self, spec: FeatureTerm, context: TermContext) -> None:
        self.names = _named(spec, context)
        self.shapes = [
            (stage_shape(context.student, ours, spec, "student"), stage_shape(context.teacher, theirs, spec, "teacher"))
            for ours, theirs in self.names
        ]

    @property
    def requires(self) -> RequiredOutputs:
        """What is asked of the teacher, and of the student."""
        ours, theirs = (tuple(dict.fromkeys(each)) for each in zip(*self.names, strict=True))
        return RequiredOutputs(teacher_features=theirs, student_features=ours)

    def of(self, student: NetworkOutput, teacher: NetworkOutput) -> list[tuple[Tensor, Tensor]]:
        """The features of each pair in float32; the teacher's are constants."""
        return [
            (student.features[ours].float(), teacher.features[theirs].detach().float()) for ours, theirs in self.names
        ]


def _named(spec: FeatureTerm, context: TermContext) -> list[tuple[str, str]]:
    if spec.features != "auto":
        return list(zip(spec.features, spec.teacher_features or spec.features, strict=True))
    if spec.auto_stages == "pooled":
        return [("pooled", "pooled")]
    ours, theirs = (
        [name for name in shapes if _may_be_taken(name, spec)] for shapes in (context.student, context.teacher)
    )
    shared = [name for name in ours if name in theirs]
    if not shared:
        told, hint = "have no stages of the same names", "name those to compare"
        if spec.auto_stages == "before activations":
            told, hint = "have no stages of the same names that end in an activation", "name stages that end in a sum"
        raise RecipeError(
            f"objective {spec.kind}: student and teacher {told} "
            f"({_listed(context.student)}; {_listed(context.teacher)})",
            hint=f"{hint}: objective.features and objective.teacher_features",
        )
    if spec.auto_stages == "last":
        return [(ours[-1], theirs[-1])]
    if spec.auto_stages == "middle":
        middle = shared[(len(shared) - 1) // 2]
        return [(middle, middle)]
    return [(name, name) for name in shared]


def _may_be_taken(name: str, spec: FeatureTerm) -> bool:
    """Whether ``features: auto`` may take a stage."""
    if spec.auto_stages == "before activations":
        return name.startswith("stage") and name.endswith(PREACT)
    if name == "stem":
        return spec.auto_stages == "stem and all"
    return name.startswith("stage") and not name.endswith(PREACT)


def stage_shape(shapes: Shapes, name: str, spec: FeatureTerm | OwnTerm, whose: str) -> tuple[int, ...]:
    """Of the ``whose`` network's stage of a name, without the batch.

    Raises:
        RecipeError: It has no such stage.
    """
    if name in shapes:
        return shapes[name]
    where = "features" if whose == "student" or spec.teacher_features is None else "teacher_features"
    raise RecipeError(
        f"objective {spec.kind}: {where}: the {whose} has no stage {name}",
        hint=f"it has {_listed(shapes)}"
        if shapes
        else "no features are stored, or several teachers' are: build one bank with --set teacher.features=pooled",
    )


def _listed(shapes: Shapes) -> str:
    return ", ".join(shapes) or "none"


def require_maps(spec: FeatureTerm, pairs: StagePairs) -> None:
    """Refuse stages that leave no map ``(C, H, W)``.

    Raises:
        RecipeError: ``pooled``, or tokens that are no square.
    """
    for names, shapes in zip(pairs.names, pairs.shapes, strict=True):
        for name, shape in zip(names, shapes, strict=True):
            if len(shape) != 3:
                raise RecipeError(
                    f"objective {spec.kind} compares maps, and {name} is {tuple(shape)}",
                    hint="name stages that leave maps: objective.features",
                )


def as_small(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps in the smaller one's height and width, averaged down; other features as they are."""
    if student.ndim != 4 or student.shape[2:] == teacher.shape[2:]:
        return student, teacher
    size = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
    return F.adaptive_avg_pool2d(student, size), F.adaptive_avg_pool2d(teacher, size)


def no_autocast(features: Tensor) -> torch.autocast:
    """Losses are worked out in float32, whatever the networks are in."""
    return torch.autocast(features.device.type, enabled=False)
