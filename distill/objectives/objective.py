"""What an objective is: it says what it wants to know of a teacher, and makes a loss of what it is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from torch import Tensor, nn

from distill.data.batches import Batch

__all__ = ["LossParts", "NetworkOutput", "Objective", "RequiredOutputs", "Term", "TermContext"]


@dataclass(frozen=True)
class NetworkOutput:
    """What a network says of a batch.

    Shapes:
        logits: ``(B, C)`` float.
        features: By the name of the stage they leave, each ``(B, ...)``; those that were asked for.
    """

    logits: Tensor
    features: Mapping[str, Tensor] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class RequiredOutputs:
    """What an objective needs of a teacher and of the student's stages; false where it needs nothing of a teacher.

    Attributes:
        teacher_features: Of which of the teacher's stages, by name.
        student_features: Of which of the student's.
    """

    teacher_logits: bool = False
    teacher_features: tuple[str, ...] = ()
    student_features: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.teacher_logits or bool(self.teacher_features)

    def __or__(self, other: RequiredOutputs) -> RequiredOutputs:
        """What either wants."""
        return RequiredOutputs(
            self.teacher_logits or other.teacher_logits,
            tuple(dict.fromkeys(self.teacher_features + other.teacher_features)),
            tuple(dict.fromkeys(self.student_features + other.student_features)),
        )


@dataclass(frozen=True)
class LossParts:
    """What to minimise, and what it is made of.

    Shapes:
        loss: ``()`` float32, the weighted sum; gradient flows to the student.
        parts: ``()`` float32 each, before weights, detached: ``ce``, and those of each term.
    """

    loss: Tensor
    parts: dict[str, Tensor]


class Objective(Protocol):
    """The one form of every objective, with a teacher or without."""

    @property
    def requires(self) -> RequiredOutputs:
        """What it wants to know of a teacher."""
        ...

    def begin_epoch(self, epoch: int) -> None:
        """Weights may depend on how many epochs are done."""
        ...

    @property
    def needs_teacher(self) -> bool:
        """Whether it wants to know anything of a teacher in the epoch that has begun."""
        ...

    def __call__(self, student: NetworkOutput, teacher: NetworkOutput | None, batch: Batch) -> LossParts:
        """The loss of a batch; ``teacher`` may be None where :attr:`needs_teacher` is false."""
        ...


@dataclass(frozen=True)
class TermContext:
    """What a term may know of its run when it is made; terms on logits need nothing of it.

    Attributes:
        student: Shapes of the student's stages by name, without the batch; ``teacher`` likewise.
        labels: ``(N,)`` int64, of the training images by their index.
        seed: Of what it draws: initial weights, negatives.
        devices: How many processes train.
        classes: How many the data has; 0: not known.
        mixes: Images are mixed with partners (mixup, CutMix).
    """

    student: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    teacher: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    labels: Tensor | None = None
    seed: int = 0
    devices: int = 1
    classes: int = 0
    mixes: bool = False


class Term(nn.Module):
    """One way of learning from a teacher; parameters and buffers that it owns are trained, saved and never shipped.

    Attributes:
        requires: What it wants to know of a teacher.
        weights: Of its parts, by their names in ``metrics.jsonl``.
    """

    requires: RequiredOutputs
    weights: Mapping[str, float]

    def begin_epoch(self, epoch: int) -> None:
        """What it does may depend on how many epochs are done; of most it does not."""

    def losses(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        """Its parts before their weights, each ``()`` float32; gradient flows to the student."""
        raise NotImplementedError
