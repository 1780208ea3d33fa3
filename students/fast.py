"""A network made to learn small images fast (after arXiv:2404.00498): fixed first filters, identity initialisation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from students.staged import Staged

__all__ = ["FirstFilters", "fast", "whitening_filters"]

_EPS = 5e-4  # keeps patches' faintest directions from being blown up: pixels are normalised to a variance of 1
_NOTHING = 1e-3 * _EPS  # a direction in which patches differ by less is none; of photographs the faintest has 6e-4


class FirstFilters(nn.Module):
    """A convolution whose filters are found from training images, never learned; its biases are learned.

    The filters are a buffer: they are saved and shipped, and are no parameters. Until :meth:`fit` they are random.
    """

    weight: Tensor

    def __init__(self, in_channels: int, kernel: int) -> None:
        super().__init__()
        inputs = in_channels * kernel**2
        self.kernel = kernel
        filters = nn.init.orthogonal_(torch.empty(inputs, inputs)).view(inputs, in_channels, kernel, kernel)
        self.register_buffer("weight", torch.cat([filters, -filters]))
        self.bias = nn.Parameter(torch.zeros(2 * inputs))

    @property
    def out_channels(self) -> int:
        """Two for each number of a patch: a filter and its negative."""
        return len(self.bias)

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Take the filters that whiten these images' patches.

        Shapes:
            images: ``(N, in_channels, S, S)`` float, normalised as the network gets them.
        """
        filters = whitening_filters(images, self.kernel)
        self.weight.copy_(torch.cat([filters, -filters]))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias)


def whitening_filters(images: Tensor, kernel: int) -> Tensor:
    """Filters whose answers to the images' patches have variance 1 and no correlation, the strongest direction first.

    They are the eigenvectors of the patches' second moments, each over the root of its eigenvalue. An eigenvector's
    sign is arbitrary: here its largest entry is positive, so that every machine finds the same. Where patches differ in
    fewer directions than they have numbers, as those of grey pictures do, mixtures of the other filters stand in for
    the rest: a filter that answers nothing would have batch norm divide by nothing.

    Shapes:
        images: ``(N, C, S, S)`` float.
        returns: ``(C * kernel**2, C, kernel, kernel)`` float32.
    """
    channels = images.shape[1]
    size = channels * kernel**2
    moments, count = torch.zeros(size, size, dtype=torch.float64), 0
    for part in images.split(500):  # a patch each pixel: all at once would be gigabytes
        patches = F.unfold(part.double(), kernel).transpose(1, 2).reshape(-1, size)
        moments += patches.T @ patches
        count += len(patches)
    values, vectors = torch.linalg.eigh(moments / count)
    directions = vectors.T.flip(0)
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    scaled = directions * largest.sign() / (values.flip(0) + _EPS).sqrt()[:, None]
    there = int((values > _NOTHING).sum())
    scaled[there:] = _mixtures(size - there, there) @ scaled[:there]
    return scaled.float().view(size, channels, kernel, kernel)


def _mixtures(count: int, of: int) -> Tensor:
    """Unit vectors ``(count, of)``, of which none is another's multiple."""
    rows = torch.cos(torch.outer(torch.arange(1.0, count + 1), torch.arange(1.0, of + 1)).double())
    return rows / rows.norm(dim=1, keepdim=True)


class _Norm(nn.BatchNorm2d):
    """Batch norm with a bias and no learned scale: a scale would be undone by the next layer's."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, momentum=0.2)
        del self.weight
        self.register_buffer("weight", torch.ones(channels))


class _Head(nn.Linear):
    """A classifier without biases, its logits scaled: the loss begins flat, whatever the learning rate."""

    def __init__(self, features: int, classes: int, scale: float) -> None:
        super().__init__(features, classes, bias=False)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.scale


class _LargestPixel(nn.Module):
    """The largest value of each channel."""

    def forward(self, x: Tensor) -> Tensor:
        return x.amax(dim=(2, 3))


def _conv(in_channels: int, channels: int) -> nn.Conv2d:
    """A 3x3 convolution that begins by handing its inputs on: the identity for as many channels as there are."""
    conv = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
    nn.init.dirac_(conv.weight[:in_channels])
    return conv


def _stage(in_channels: int, channels: int, convolutions: int) -> nn.Sequential:
    stage = nn.Sequential()
    for number in range(convolutions):
        stage.append(_conv(channels if number else in_channels, channels))
        if number == 0:
            stage.append(nn.MaxPool2d(2))
        stage.extend([_Norm(channels), nn.GELU()])
    return stage


def fast(
    *,
    num_classes: int,
    in_channels: int = 3,
    input_size: int = 32,
    channels: Sequence[int] = (64, 256, 256),
    convolutions: int = 2,
    kernel: int = 2,
    logit_scale: float = 1 / 9,
    dropout: float = 0.0,
) -> nn.Module:
    """Build it: first filters, stages that halve the map, the largest value of each channel, a classifier.

    Each stage is a convolution, a max-pool, and further convolutions, each with batch norm and GELU. With the defaults
    and ten classes it has 1,971,352 parameters, and 288 fixed numbers beside them.

    Shapes:
        input: ``(B, in_channels, input_size, input_size)``; output: ``(B, num_classes)`` logits.

    Raises:
        ValueError: The image is too small for that many stages.
    """
    if (input_size - kernel + 1) >> len(channels) < 1:
        raise ValueError(f"input_size {input_size} is too small for {len(channels)} stages: each halves the map")
    first = FirstFilters(in_channels, kernel)
    stages, width = nn.Sequential(), first.out_channels
    for out in channels:
        stages.append(_stage(width, out, convolutions))
        width = out
    head = _Head(width, num_classes, logit_scale)
    return Staged(stem=nn.Sequential(first, nn.GELU()), stages=stages, pool=_LargestPixel(), dropout=dropout, head=head)
