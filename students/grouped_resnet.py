"""A residual network in groups of equal width, joined by 1x1 convolutions; every convolution has a bias."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from students.staged import Staged

__all__ = ["grouped_resnet"]


class _Block(nn.Module):
    """Two 3x3 convolutions with batch norm and a skip; no ReLU follows the sum."""

    def __init__(self, channels: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(channels)
        self.skip = nn.Identity() if stride == 1 else nn.Conv2d(channels, channels, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x)))))
        return out + self.skip(x)


def grouped_resnet(
    *,
    num_classes: int,
    in_channels: int = 3,
    input_size: int,
    blocks: Sequence[int],
    channels: Sequence[int],
    stem_dropout: float,
    pool: int,
    dropout: float,
) -> nn.Module:
    """Build it: stem of convolution, ReLU, batch norm and 2-d dropout, then the groups.

    From the second group on, a group opens with a 1x1 convolution that widens, and its first block has stride 2 and a
    1x1 convolution (no batch norm) on the skip. With the defaults and 100 classes it has 4,035,364 parameters.

    Shapes:
        input: ``(B, in_channels, input_size, input_size)``; output: ``(B, num_classes)`` logits.

    Raises:
        ValueError: The pooling window is larger than the last map, or lengths differ.
    """
    width, size = channels[0], input_size
    stem = nn.Sequential(
        nn.Conv2d(in_channels, width, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.BatchNorm2d(width),
        nn.Dropout2d(stem_dropout),
    )
    groups = nn.Sequential()
    for i, (count, out) in enumerate(zip(blocks, channels, strict=True)):
        group = nn.Sequential() if i == 0 else nn.Sequential(nn.Conv2d(width, out, 1))
        group.extend(_Block(out, stride=2 if i > 0 and block == 0 else 1) for block in range(count))
        groups.append(group)
        width, size = out, size if i == 0 else -(-size // 2)
    if pool > size:
        raise ValueError(f"pool {pool} is larger than the last map, {size}x{size} at input_size {input_size}")
    head = nn.Linear(width * (size // pool) ** 2, num_classes)
    return Staged(stem=stem, stages=groups, pool=nn.MaxPool2d(pool), dropout=dropout, head=head)
