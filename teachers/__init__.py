"""Networks that may teach: timm's, fitted to small images, and a few own. ``TEACHERS`` maps a name to its builder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from teachers.resnet9 import resnet9
from teachers.tiny import tiny

__all__ = ["TEACHERS"]


def _timm(**options: Any) -> nn.Module:
    """timm's network, by :func:`teachers.timm_backbone.timm_backbone`: timm takes seconds to import."""
    from teachers.timm_backbone import timm_backbone

    return timm_backbone(**options)


TEACHERS: dict[str, Callable[..., nn.Module]] = {
    "resnet9": resnet9,
    "timm": _timm,
    "tiny": tiny,
}
