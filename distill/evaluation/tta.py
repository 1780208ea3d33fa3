"""Test-time augmentation: a classifier asked about an image and its mirror image, as if it were another classifier."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from distill.models.classifier import Wrapped

__all__ = ["Mirrored"]


@dataclass(frozen=True)
class Mirrored(Wrapped):
    """Answers with the mean of the logits of an image and of its mirror image.

    Twice the work, and another figure than the classifier's own: whoever shows it says so.
    """

    def logits(self, pixels: Tensor) -> Tensor:
        """Logits ``(N, C)`` float32 of pixels ``(N, 3, S, S)`` uint8."""
        return (self.inner.logits(pixels) + self.inner.logits(pixels.flip(-1))) / 2
