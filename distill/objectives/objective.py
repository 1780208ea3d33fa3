"""What an objective is: it says what it wants to know of a teacher, and makes a loss of what it is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from torch import Tensor

from distill.data.batches import Batch

__all__ = ["Answer", "Asks", "LossParts", "Objective"]


@dataclass(frozen=True)
class Answer:
    """What a network says of a batch.

    Shapes:
        logits: ``(B, C)`` float.
        features: By the name of the stage they leave, each ``(B, ...)``; those that were asked for.
    """

    logits: Tensor
    features: Mapping[str, Tensor] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Asks:
    """What an objective wants to know of a teacher; false where it wants nothing.

    Attributes:
        features: Of which stages, by name.
    """

    logits: bool = False
    features: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.logits or bool(self.features)


@dataclass(frozen=True)
class LossParts:
    """What to minimise, and what it is made of.

    Shapes:
        loss: ``()`` float32, the weighted sum; gradient flows to the student.
        parts: ``()`` float32 each, before weights, detached: ``ce``, and ``kd`` where a teacher is asked.
    """

    loss: Tensor
    parts: dict[str, Tensor]


class Objective(Protocol):
    """The one form of every objective, with a teacher or without."""

    @property
    def asks(self) -> Asks:
        """What it wants to know of a teacher."""
        ...

    def __call__(self, student: Answer, teacher: Answer | None, batch: Batch) -> LossParts:
        """The loss of a batch; ``teacher`` is None where :attr:`asks` is false."""
        ...
