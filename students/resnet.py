"""Residual networks of basic blocks (arXiv:1512.03385, 1605.07146) by hyper-parameters: blocks, channels, kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from students.staged import Staged

__all__ = ["PadSkip", "resnet"]


class PadSkip(nn.Module):
    """A skip without parameters: every ``stride``-th pixel, new channels filled with zeros on both sides (option A)."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        if out_channels < in_channels:
            raise ValueError(f"skip: pad cannot go from {in_channels} to fewer channels ({out_channels})")
        self.stride = stride
        missing = out_channels - in_channels
        self.before, self.after = missing // 2, missing - missing // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


def _conv(i: int, o: int, kernel: int, *, stride: int = 1, bias: bool) -> nn.Conv2d:
    conv = nn.Conv2d(i, o, kernel, stride=stride, padding=kernel // 2, bias=bias)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


def _norm(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.BatchNorm2d(channels), nn.ReLU(inplace=True)


class _BasicBlock(nn.Module):
    def __init__(
        self, in_channels: int, channels: int, *, stride: int, kernel: int, skip: str, skip_kernel: int, bias: bool
    ) -> None:
        super().__init__()
        self.conv1 = _conv(in_channels, channels, kernel, stride=stride, bias=bias)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = _conv(channels, channels, kernel, bias=bias)
        self.bn2 = nn.BatchNorm2d(channels)
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.skip = (
                PadSkip(in_channels, channels, stride=stride)
                if skip == "pad"
                else nn.Sequential(
                    _conv(in_channels, channels, skip_kernel, stride=stride, bias=bias), nn.BatchNorm2d(channels)
                )
            )
        self.act2 = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.act1(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.act2(out + self.skip(x))


class _PreActivationBlock(nn.Module):
    """Batch norm and ReLU before each convolution, and none after the sum (arXiv:1603.05027)."""

    def __init__(
        self, in_channels: int, channels: int, *, stride: int, kernel: int, skip: str, skip_kernel: int, bias: bool
    ) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.act1 = nn.ReLU(inplace=True)
        self.conv1 = _conv(in_channels, channels, kernel, stride=stride, bias=bias)
        self.bn2 = nn.BatchNorm2d(channels)
        self.act2 = nn.ReLU(inplace=True)
        self.conv2 = _conv(channels, channels, kernel, bias=bias)
        self.skip: nn.Module | None = None
        if stride != 1 or in_channels != channels:
            self.skip = (
                PadSkip(in_channels, channels, stride=stride)
                if skip == "pad"
                else _conv(in_channels, channels, skip_kernel, stride=stride, bias=bias)
            )

    def forward(self, x: Tensor) -> Tensor:
        activated = self.act1(self.bn1(x))
        out = self.conv2(self.act2(self.bn2(self.conv1(activated))))
        return out + (x if self.skip is None else self.skip(activated))


def resnet(
    *,
    num_classes: int,
    in_channels: int = 3,
    input_size: int,
    blocks: Sequence[int],
    channels: Sequence[int],
    strides: Sequence[int],
    kernel: int,
    skip_kernel: int,
    skip: Literal["projection", "pad"],
    pre_activation: bool,
    conv_bias: bool,
    stem_channels: int | None,
    pool: int | None,
    dropout: float,
) -> nn.Module:
    """Build a residual network for small images: a 3x3 stride-1 stem and no max-pool.

    A skip has parameters only where the shape changes (convolution and batch norm, or none with ``skip="pad"``). With
    ``pre_activation`` batch norm and ReLU stand before convolutions, and once more behind the last block; a skip is
    then a convolution alone: with three stages of (d - 4) / 6 blocks and 16k, 32k and 64k channels behind a stem of 16
    that is the wide residual network WRN-d-k.

    The first block of a stage has the stage's stride. ``pool`` is the window of the average pooling at the end; a
    window smaller than the last map leaves several cells, all of which enter the classifier.

    Shapes:
        input: ``(B, in_channels, input_size, input_size)``; output: ``(B, num_classes)`` logits.

    Raises:
        ValueError: The window is larger than the last map, or the hyper-parameters' lengths differ.
    """
    width = stem_channels or channels[0]
    first = _conv(in_channels, width, kernel, bias=conv_bias)
    block: type[nn.Module] = _PreActivationBlock if pre_activation else _BasicBlock
    stem = nn.Sequential(first) if pre_activation else nn.Sequential(first, *_norm(width))
    stages, size = nn.Sequential(), input_size
    for count, out, stride in zip(blocks, channels, strides, strict=True):
        stage = nn.Sequential()
        for step in [stride] + [1] * (count - 1):
            stage.append(
                block(width, out, stride=step, kernel=kernel, skip=skip, skip_kernel=skip_kernel, bias=conv_bias)
            )
            width = out
        stages.append(stage)
        size = -(-size // stride)
    if pre_activation:
        stage.extend(_norm(width))
    if pool is not None and pool > size:
        raise ValueError(f"pool {pool} is larger than the last map, {size}x{size} at input_size {input_size}")
    cells = 1 if pool is None else (size // pool) ** 2
    pooling = nn.AdaptiveAvgPool2d(1) if pool is None else nn.AvgPool2d(pool)
    return Staged(stem=stem, stages=stages, pool=pooling, dropout=dropout, head=nn.Linear(width * cells, num_classes))
