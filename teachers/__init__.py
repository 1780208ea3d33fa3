"""Networks that may teach: timm's, fitted to small images, and a few own. ``TEACHERS`` maps a name to its builder."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from teachers.resnet9 import resnet9
from teachers.timm_backbone import timm_backbone
from teachers.tiny import tiny

__all__ = ["TEACHERS"]

TEACHERS: dict[str, Callable[..., nn.Module]] = {
    "resnet9": resnet9,
    "timm": timm_backbone,
    "tiny": tiny,
}
