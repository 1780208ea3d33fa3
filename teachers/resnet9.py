"""ResNet-9: eight convolutions and a linear layer, two residual pairs among them; quick to train on small images."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

__all__ = ["resnet9"]


def _unit(i: int, o: int, *, pool: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.MaxPool2d(2)) if pool else nn.Sequential(*layers)


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.units = nn.Sequential(_unit(channels, channels), _unit(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.units(x) + x


class _GlobalMaxPool(nn.Module):
    """Adaptive max-pooling to one cell, whose backward pass has no deterministic kernel on a GPU; this has one."""

    def forward(self, x: Tensor) -> Tensor:
        return x.amax(dim=(2, 3))


def resnet9(*, num_classes: int, in_channels: int = 3, input_size: int, width: int, dropout: float) -> nn.Module:
    """Build convolutions with biases, batch norm and ReLU, in three stages.

    With width 64 and 10 classes it has 6,575,370 parameters.

    Shapes:
        input: ``(B, in_channels, input_size, input_size)``; output: ``(B, num_classes)`` logits.

    Raises:
        ValueError: The image is smaller than the three poolings need.
    """
    if input_size < 8:
        raise ValueError(f"input_size {input_size} is too small: three poolings need at least 8")
    w = width
    stem = _unit(in_channels, w)
    stages = nn.Sequential(
        nn.Sequential(_unit(w, 2 * w, pool=True), _Residual(2 * w)),
        _unit(2 * w, 4 * w, pool=True),
        nn.Sequential(_unit(4 * w, 8 * w, pool=True), _Residual(8 * w)),
    )
    parts = OrderedDict[str, nn.Module](
        stem=stem,
        stages=stages,
        pool=_GlobalMaxPool(),  # at 32 pixels the map is 4x4: the published max-pool of 4
        dropout=nn.Dropout(dropout),
        head=nn.Linear(8 * w, num_classes),
    )
    return nn.Sequential(parts)
