"""A teacher that is asked now: frozen, in eval mode, normalised its own way, in one fixed batch size."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.data.batches import Batch
from distill.train.trained import Trained

__all__ = ["CPU_ASK_BATCH", "LiveTeacher", "ask", "round_logits"]

# Below some 48 images a CPU's matrix products take another path, and an image's logits change in the last bits with
# the size of its batch. One fixed size, padded, keeps the answers the same for whoever asks.
CPU_ASK_BATCH = 64


def ask(teacher: Trained, images: Tensor) -> Tensor:
    """The teacher's logits, float32 ``(B, C)``, for pixels ``(B, 3, S, S)`` in 0..255.

    On a CPU they are asked 64 at a time, the last batch padded; on a GPU all at once.
    """
    if images.device.type != "cpu":
        return teacher(images)
    pieces = [_ask_padded(teacher, piece) for piece in images.split(CPU_ASK_BATCH)]
    return torch.cat(pieces)


def _ask_padded(teacher: Trained, images: Tensor) -> Tensor:
    count = len(images)
    if count < CPU_ASK_BATCH:
        padding = images.new_zeros((CPU_ASK_BATCH - count, *images.shape[1:]))
        images = torch.cat([images, padding])
    return teacher(images)[:count]


def round_logits(logits: Tensor, dtype: str) -> Tensor:
    """Logits as a bank of ``dtype`` would give them back, float32."""
    return logits.to(getattr(torch, dtype)).float()


class LiveTeacher:
    """Asks a teacher about every batch, and rounds its answers as a bank would."""

    def __init__(self, teacher: Trained, *, logits_dtype: str) -> None:
        self.teacher = teacher
        self._dtype = logits_dtype

    def logits(self, batch: Batch) -> Tensor:
        """Teacher logits of a batch: float32 ``(B, C)``, no gradient."""
        return round_logits(ask(self.teacher, batch.images), self._dtype)
