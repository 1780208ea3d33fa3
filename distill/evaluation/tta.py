"""Test-time augmentation: a classifier asked about an image and its mirror image, as if it were another classifier."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distill.models.classifier import Classifier

__all__ = ["Mirrored"]


@dataclass(frozen=True)
class Mirrored:
    """Answers with the mean of the logits of an image and of its mirror image.

    Twice the work, and another figure than the classifier's own: whoever shows it says so.
    """

    inner: Classifier

    @property
    def place(self) -> str:
        """The classifier's."""
        return self.inner.place

    @property
    def name(self) -> str:
        """The classifier's."""
        return self.inner.name

    @property
    def classes(self) -> tuple[str, ...]:
        """The classifier's."""
        return self.inner.classes

    @property
    def image_size(self) -> int:
        """The classifier's."""
        return self.inner.image_size

    @property
    def runtime(self) -> str:
        """The classifier's."""
        return self.inner.runtime

    @property
    def device(self) -> torch.device:
        """The classifier's."""
        return self.inner.device

    def logits(self, pixels: Tensor) -> Tensor:
        """Logits ``(N, C)`` float32 of pixels ``(N, 3, S, S)`` uint8."""
        return (self.inner.logits(pixels) + self.inner.logits(pixels.flip(-1))) / 2
