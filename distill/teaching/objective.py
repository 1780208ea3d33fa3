"""The objective the loop is handed: a loss, and where its teacher's logits come from, if it has a teacher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from distill.data.batches import Batch
from distill.objectives import LossParts

__all__ = ["Supervised", "Taught", "TeacherSource"]

Loss = Callable[..., LossParts]


class TeacherSource(Protocol):
    """Where teacher logits come from."""

    def logits(self, batch: Batch) -> Tensor:
        """Float32 ``(B, C)``, no gradient."""
        ...


class Supervised:
    """A loss that needs no teacher."""

    def __init__(self, loss: Loss) -> None:
        self._loss = loss

    def __call__(self, logits: Tensor, batch: Batch) -> LossParts:
        return self._loss(logits, None, batch.labels, batch.mix)


class Taught:
    """A loss against a teacher's logits."""

    def __init__(self, loss: Loss, source: TeacherSource) -> None:
        self._loss = loss
        self._source = source

    def __call__(self, logits: Tensor, batch: Batch) -> LossParts:
        return self._loss(logits, self._source.logits(batch), batch.labels, batch.mix)
