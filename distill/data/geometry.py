"""Moving pixels in batches by exact integer arithmetic: the same bytes on every device and in every batch.

Source positions are integers in 1/256 of a pixel, and bilinear weights are 8-bit; nothing is rounded but the final
value. (``grid_sample`` rounds differently on each device, and a matrix product differently with the batch size.)
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

__all__ = ["POSITION_BITS", "TURN_BITS", "fold", "gather_columns", "gather_pixels", "gather_rows", "resample", "rotate"]

POSITION_BITS = 8
TURN_BITS = 14  # of cosines and sines: their product with a coordinate of a 1024-pixel image still fits in 32 bits
_ONE = 1 << POSITION_BITS

Border = Literal["reflect", "zero"]


def fold(position: Tensor, size: int, border: Border) -> Tensor:
    """Whole positions outside [0, size) brought inside: mirrored about the edge pixel, or moved to it."""
    if border == "zero":
        return position.clamp(0, size - 1)
    last = size - 1
    return last - (last - position.abs()).abs()


def gather_pixels(images: Tensor, at: Tensor, ys: Tensor, xs: Tensor) -> Tensor:
    """``out[b, c, y, x] = images[at[b], c, ys[b, y], xs[b, x]]``.

    Whole rows are copied first, straight out of the data set, then columns within each row: about 3 microseconds for
    a 32x32 image on one core, against 19 for the same in one advanced index.

    Shapes:
        images: ``(N, 3, S, S)``; at: ``(B,)``; ys, xs: ``(B, S)`` int64; returns ``(B, 3, S, S)``.
    """
    (batch, size), channels = xs.shape, images.shape[1]
    rows = gather_rows(images, at, ys).view(batch, channels * size, size)
    return gather_columns(rows, xs).view(batch, channels, size, size)


def gather_rows(images: Tensor, at: Tensor, ys: Tensor) -> Tensor:
    """``out[b, c, y] = images[at[b], c, ys[b, y]]``: ``(B, 3, S, S)``."""
    (batch, size), channels = ys.shape, images.shape[1]
    planes = at[:, None] * channels + torch.arange(channels, device=at.device)
    rows = (planes * size)[:, :, None] + ys[:, None, :]
    return images.view(-1, size).index_select(0, rows.view(-1)).view(batch, channels, size, size)


def gather_columns(rows: Tensor, xs: Tensor) -> Tensor:
    """``out[b, r, x] = rows[b, r, xs[b, x]]``: ``(B, R, S)``."""
    return rows.gather(2, xs[:, None, :].expand(-1, rows.shape[1], -1))


def resample(images: Tensor, at: Tensor, ys: Tensor, xs: Tensor) -> Tensor:
    """Bilinear values on a grid of rows and columns, positions beyond the edge taking the edge's value.

    Shapes:
        images: ``(N, 3, S, S)`` uint8; at: ``(B,)``; ys, xs: ``(B, S)`` int64 in 1/256 pixel.
        returns: ``(B, 3, S, S)`` uint8.
    """
    (batch, size), channels = xs.shape, images.shape[1]
    ys, xs = (position.clamp(0, (size - 1) * _ONE) for position in (ys, xs))
    y0, y_part = ys >> POSITION_BITS, (ys & (_ONE - 1)).int()[:, None, :, None]
    x0, x_part = xs >> POSITION_BITS, (xs & (_ONE - 1)).int()[:, None, :]
    upper = gather_rows(images, at, y0)
    lower = gather_rows(images, at, (y0 + 1).clamp(max=size - 1))
    rows = (upper * (_ONE - y_part) + lower * y_part).view(batch, channels * size, size)
    left, right = gather_columns(rows, x0), gather_columns(rows, (x0 + 1).clamp(max=size - 1))
    return _rounded(left * (_ONE - x_part) + right * x_part).view(batch, channels, size, size)


def rotate(images: Tensor, cosine: Tensor, sine: Tensor, *, border: Border) -> Tensor:
    """Turns each image counter-clockwise about its centre, bilinear.

    Shapes:
        images: ``(B, 3, S, S)`` uint8; cosine, sine: ``(B,)`` int64 in units of ``2 ** -TURN_BITS``.
        returns: ``(B, 3, S, S)`` uint8.
    """
    size = images.shape[-1]
    # From the centre, in half pixels.
    offset = 2 * torch.arange(size, device=images.device, dtype=torch.int32) - (size - 1)
    y, x = offset[None, :, None], offset[None, None, :]
    cosine, sine = cosine.int()[:, None, None], sine.int()[:, None, None]
    shift = TURN_BITS + 1 - POSITION_BITS
    centre = (size - 1) * (_ONE // 2)
    half = 1 << (shift - 1)
    ys = ((cosine * y + (sine * x + half)) >> shift) + centre
    xs = ((cosine * x - (sine * y - half)) >> shift) + centre
    return _bilinear(images, ys, xs, border=border)


def _bilinear(images: Tensor, ys: Tensor, xs: Tensor, *, border: Border) -> Tensor:
    """Values at any positions ``(B, S, S)`` int32 in 1/256 pixel: the four neighbours, weighted."""
    batch, channels, size, _ = images.shape
    planes = images.view(batch, channels, size * size)
    y_taps, x_taps = _taps(ys, size, border), _taps(xs, size, border)
    total: Tensor | None = None
    for y_place, y_weight in y_taps:
        for x_place, x_weight in x_taps:
            place = (y_place * size + x_place).long().view(batch, 1, -1).expand(-1, channels, -1)
            part = planes.gather(2, place) * (y_weight * x_weight).view(batch, 1, -1)
            total = part if total is None else total.add_(part)
    assert total is not None
    return _rounded(total).view(images.shape)


def _taps(position: Tensor, size: int, border: Border) -> list[tuple[Tensor, Tensor]]:
    """The two neighbours of a position on one axis, brought inside, and their weights in 1/256."""
    first, part = position >> POSITION_BITS, position & (_ONE - 1)
    taps = [(first, _ONE - part), (first + 1, part)]
    if border == "zero":
        taps = [(place, weight * ((place >= 0) & (place < size))) for place, weight in taps]
    return [(fold(place, size, border), weight) for place, weight in taps]


def _rounded(values: Tensor) -> Tensor:
    """From units of ``1 / _ONE ** 2`` to the nearest whole pixel value."""
    return (values.add_(_ONE * _ONE // 2) >> (2 * POSITION_BITS)).to(torch.uint8)
