"""A random teacher of a few thousand parameters, for tests and for trying things out in seconds."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

__all__ = ["tiny"]


def tiny(
    *,
    num_classes: int,
    in_channels: int = 3,
    input_size: int,
    width: int,
    norm: bool,
    dropout: float,
) -> nn.Module:
    """Build two strided 3x3 convolutions.

    ``norm=False`` leaves out batch norm, so that an image's logits do not depend on the batch.

    Shapes, at any ``S``:
        input: ``(B, in_channels, S, S)``; output: ``(B, num_classes)`` logits.
    """

    def unit(i: int, o: int) -> nn.Sequential:
        conv = nn.Conv2d(i, o, 3, stride=2, padding=1, bias=not norm)
        return nn.Sequential(conv, nn.BatchNorm2d(o) if norm else nn.Identity(), nn.ReLU(inplace=True))

    parts = OrderedDict[str, nn.Module](
        stem=unit(in_channels, width),
        stages=nn.Sequential(unit(width, 2 * width)),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        dropout=nn.Dropout(dropout),
        head=nn.Linear(2 * width, num_classes),
    )
    return nn.Sequential(parts)
