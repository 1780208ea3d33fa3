"""What builders raise where a user can help it. No timm here: who catches these need not import it."""

from __future__ import annotations

__all__ = ["ImageSizeError", "WeightsUnavailableError"]


class ImageSizeError(ValueError):
    """The network cannot be built for images of this size, and can for others."""


class WeightsUnavailableError(RuntimeError):
    """Pretrained weights do not exist, or are neither cached nor reachable."""
