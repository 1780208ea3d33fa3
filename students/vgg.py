"""VGG with batch norm (arXiv:1409.1556) for small images, as studies of distillation have it (arXiv:1910.10699)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from students.staged import Staged

__all__ = ["vgg"]


def vgg(
    *,
    num_classes: int,
    in_channels: int = 3,
    input_size: int,
    channels: Sequence[int],
    convolutions: Sequence[int],
    dropout: float,
) -> nn.Module:
    """Build stages of 3x3 convolutions; a max-pool stands between two of them, but not before the last.

    Args:
        channels: Of each stage; ``convolutions`` how many it has.

    Shapes:
        input: ``(B, in_channels, input_size, input_size)``; output: ``(B, num_classes)`` logits.

    Raises:
        ValueError: Nothing is left of such small images.
    """
    if input_size < (least := 2 ** max(len(channels) - 2, 0)):
        raise ValueError(f"input_size {input_size} is too small for {len(channels)} stages: {least} or more")
    stages, width = nn.Sequential(), in_channels
    for place, (wide, count) in enumerate(zip(channels, convolutions, strict=True)):
        pooled = 0 < place < len(channels) - 1
        stage = nn.Sequential(*([nn.MaxPool2d(2)] if pooled else []))
        for _ in range(count):
            conv = nn.Conv2d(width, wide, 3, padding=1)
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            stage.extend([conv, nn.BatchNorm2d(wide), nn.ReLU(inplace=True)])
            width = wide
        stages.append(stage)
    head = nn.Linear(width, num_classes)
    nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
    return Staged(stem=nn.Identity(), stages=stages, pool=nn.AdaptiveAvgPool2d(1), dropout=dropout, head=head)
