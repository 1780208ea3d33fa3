"""A student of about a thousand parameters, for tests and for trying things out in seconds."""

from __future__ import annotations

from torch import nn

from students.staged import Staged

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
    """Build a strided stem and one depthwise-separable convolution.

    ``norm=False`` leaves out batch norm, so that an image's logits do not depend on the batch.

    Shapes, at any ``S``:
        input: ``(B, in_channels, S, S)``; output: ``(B, num_classes)`` logits.
    """

    def normed(channels: int) -> list[nn.Module]:
        return [nn.BatchNorm2d(channels) if norm else nn.Identity(), nn.ReLU(inplace=True)]

    stem = nn.Sequential(nn.Conv2d(in_channels, width, 3, stride=2, padding=1, bias=not norm), *normed(width))
    separable = nn.Sequential(
        nn.Conv2d(width, width, 3, stride=2, padding=1, groups=width, bias=False),
        nn.Conv2d(width, 2 * width, 1, bias=not norm),
        *normed(2 * width),
    )
    pool, head = nn.AdaptiveAvgPool2d(1), nn.Linear(2 * width, num_classes)
    return Staged(stem=stem, stages=nn.Sequential(separable), pool=pool, dropout=dropout, head=head)
