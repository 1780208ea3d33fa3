"""A teacher that is asked now: frozen, in eval mode, normalised its own way, in one fixed batch size."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.data.batches import Batch
from distill.devices import using_threads
from distill.models.ask import ask
from distill.models.trained import Trained
from distill.objectives import Answer
from distill.recipe.schema import TrainSpec

__all__ = ["LiveTeacher", "compile_teacher", "round_logits"]


def compile_teacher(teacher: Trained, train: TrainSpec) -> None:
    """Compile the teacher's forward pass where the student's is compiled, on a GPU.

    Not on a CPU, where live and stored answers must agree to the last bit.
    """
    if train.compile is not False and teacher.device.type == "cuda":
        teacher.module.compile(dynamic=False)


def round_logits(logits: Tensor, dtype: str) -> Tensor:
    """Logits as a bank of ``dtype`` would give them back, float32."""
    return logits.to(getattr(torch, dtype)).float()


class LiveTeacher:
    """Asks a teacher about every batch, and rounds its answers as a bank would."""

    def __init__(self, teacher: Trained, *, logits_dtype: str, threads: int | None = None) -> None:
        self.teacher = teacher
        self._threads = threads
        self._dtype = logits_dtype
        self._size = 0  # of the largest batch so far: smaller ones are padded to it, so that a GPU compiles one shape

    def answer(self, batch: Batch) -> Answer:
        """Teacher logits of a batch: float32 ``(B, C)``, no gradient."""
        self._size = max(self._size, batch.size)
        with using_threads(self._threads):
            logits = ask(self.teacher, batch.images, size=self._size)
        return Answer(round_logits(logits, self._dtype))
