"""A teacher that is asked now: frozen, in eval mode, normalised its own way, in one fixed batch size."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.data.batches import Batch
from distill.models.trained import Trained
from distill.recipe.schema import TrainSpec

__all__ = ["CPU_ASK_BATCH", "LiveTeacher", "ask", "compile_teacher", "round_logits"]

# Below some 48 images a CPU's matrix products take another path, and an image's logits change in the last bits with
# the size of its batch. One fixed size, padded, keeps the answers the same for whoever asks.
CPU_ASK_BATCH = 64


def ask(teacher: Trained, images: Tensor, *, size: int | None = None) -> Tensor:
    """The teacher's logits, float32 ``(B, C)``, for pixels ``(B, 3, S, S)`` in 0..255.

    Args:
        size: How many are asked at a time on a GPU, the last batch padded; None: all at once. On a CPU always 64.
    """
    size = CPU_ASK_BATCH if images.device.type == "cpu" else size or len(images)
    return torch.cat([_ask_padded(teacher, piece, size) for piece in images.split(size)])


def _ask_padded(teacher: Trained, images: Tensor, size: int) -> Tensor:
    count = len(images)
    if count < size:
        padding = images.new_zeros((size - count, *images.shape[1:]))
        images = torch.cat([images, padding])
    return teacher(images)[:count]


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

    def __init__(self, teacher: Trained, *, logits_dtype: str) -> None:
        self.teacher = teacher
        self._dtype = logits_dtype
        self._size = 0  # of the largest batch so far: smaller ones are padded to it, so that a GPU compiles one shape

    def logits(self, batch: Batch) -> Tensor:
        """Teacher logits of a batch: float32 ``(B, C)``, no gradient."""
        self._size = max(self._size, batch.size)
        return round_logits(ask(self.teacher, batch.images, size=self._size), self._dtype)
