"""What colours become, in batches, by integer arithmetic alone: the same bytes on every device and in every batch.

Results are cut off, not rounded, where torchvision cuts them off: they differ from its float arithmetic by a level at
most, where a value lies on the edge between two. Every operation has a setting that changes nothing, so that an image
which it does not concern goes through it unharmed: nothing has a shape that depends on the data.
"""

from __future__ import annotations

import torch
from torch import Tensor

from distill.data.geometry import TURN_BITS, fold

__all__ = [
    "AUTO_CONTRAST",
    "BLUR_BITS",
    "BRIGHTNESS",
    "CONTRAST",
    "EQUALIZE",
    "FACTOR_BITS",
    "HUE_BITS",
    "POSTERIZE",
    "SATURATION",
    "SOLARIZE",
    "blurred",
    "grey",
    "looked_up",
    "moved",
    "sharpened",
    "toned",
    "turned_hue",
]

FACTOR_BITS = 12  # of factors that multiply pixels; with 8 of a pixel and 8 of a mean they fit in 32
HUE_BITS = 12  # of a sixth of the circle of hues
BLUR_BITS = 11  # of a kernel's weights: both passes and a pixel fit in 32 without rounding between
BRIGHTNESS, CONTRAST, SATURATION = range(3)  # kinds of toned()
POSTERIZE, SOLARIZE, AUTO_CONTRAST, EQUALIZE = range(1, 5)  # and of looked_up(), where 0 is nothing
_ONE = 1 << FACTOR_BITS
_TARGET_BITS = 8
_LEVELS = 256


def grey(pixels: Tensor) -> Tensor:
    """The weighted mean of the channels, cut off: int32 ``(B, 1, S, S)``."""
    red, green, blue = pixels.int().split(1, dim=1)
    return (red * 2989 + green * 5870 + blue * 1140) // 10000


def toned(pixels: Tensor, kind: Tensor, factor: Tensor) -> Tensor:
    """Away from black, from the image's mean grey, or from each pixel's grey, by a factor; towards it below 1.

    Shapes:
        pixels: ``(B, 3, S, S)`` uint8.
        kind: ``(B,)``: ``BRIGHTNESS``, ``CONTRAST``, ``SATURATION``.
        factor: ``(B,)`` in units of ``2**-FACTOR_BITS``; 1 changes nothing.
        returns: ``(B, 3, S, S)`` uint8.
    """
    area = pixels.shape[-1] ** 2
    shades = grey(pixels)
    total = shades.sum(dim=(1, 2, 3), keepdim=True, dtype=torch.int64)
    mean = (((total << _TARGET_BITS) + area // 2) // area).int()
    kind, factor = _wide(kind), _wide(factor)
    target = (mean * (kind == CONTRAST)) + (shades << _TARGET_BITS) * (kind == SATURATION)
    values = pixels.int() * (factor << _TARGET_BITS) + (_ONE - factor) * target
    return _levels(values >> (FACTOR_BITS + _TARGET_BITS))


def turned_hue(pixels: Tensor, turn: Tensor) -> Tensor:
    """Hues moved on their circle; the largest and smallest channel of a pixel keep their values.

    Shapes:
        pixels: ``(B, 3, S, S)`` uint8; returns the same.
        turn: ``(B,)`` in units of ``2**-HUE_BITS`` of a sixth of the circle, at most half of it; 0 changes nothing.
    """
    turn = _wide(turn)
    red, green, blue = channels = pixels.int().split(1, dim=1)
    largest, smallest = pixels.int().amax(1, keepdim=True), pixels.int().amin(1, keepdim=True)
    spread = largest - smallest
    place = torch.where(
        red == largest,
        green - blue,
        torch.where(green == largest, 2 * spread + blue - red, 4 * spread + red - green),
    )
    # Everything below is in units of 2**-HUE_BITS of the spread: the circle is 6 spreads long.
    unit = spread << HUE_BITS
    place = (place << HUE_BITS) + spread * turn
    place = place + 6 * unit * (place < 0).int()
    place = place - 6 * unit * (place >= 6 * unit).int()
    bump = [(place - 3 * unit).abs() - unit, 2 * unit - (place - 2 * unit).abs(), 2 * unit - (place - 4 * unit).abs()]
    base = smallest << HUE_BITS
    values = torch.cat([base + torch.minimum(each.clamp(min=0), unit) for each in bump], dim=1)
    # torchvision goes from 0..1 back to levels by a factor of 255.999 and cuts off: 1027 / 2**18 is 0.999 / 255.
    turned = (values + ((values * 1027) >> 18)) >> HUE_BITS
    return torch.where(turn == 0, torch.cat(channels, dim=1), turned).to(torch.uint8)


def sharpened(pixels: Tensor, factor: Tensor) -> Tensor:
    """Away from a 3x3 blur by a factor, towards it below 1; the image's edge stays as it is.

    Shapes:
        pixels: ``(B, 3, S, S)`` uint8; returns the same.
        factor: ``(B,)`` in units of ``2**-FACTOR_BITS``; 1 changes nothing.
    """
    values = pixels.int()
    rows = values[:, :, :-2] + values[:, :, 1:-1] + values[:, :, 2:]
    inner = values[:, :, 1:-1, 1:-1]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * inner
    smooth = ((2 * total + 13) * 80660) >> 21  # the nearest to total / 13, of sums up to 13 * 255
    result = pixels.clone()
    result[:, :, 1:-1, 1:-1] = _levels(
        ((inner << FACTOR_BITS) + (smooth - inner) * (_ONE - _wide(factor))) >> FACTOR_BITS
    )
    return result


def looked_up(pixels: Tensor, kind: Tensor, level: Tensor) -> Tensor:
    """A new level for each level of each channel: fewer bits, inverted, stretched, or all equally frequent.

    Shapes:
        pixels: ``(B, 3, S, S)`` uint8; returns the same.
        kind: ``(B,)``: 0 nothing, ``POSTERIZE``, ``SOLARIZE``, ``AUTO_CONTRAST``, ``EQUALIZE``.
        level: ``(B,)``: bits that are kept, or the level from which on values are inverted.
    """
    batch, channels, size, _ = pixels.shape
    flat = pixels.view(batch, channels, size * size).long()
    kind, level = kind[:, None, None], level[:, None, None]
    levels = torch.arange(_LEVELS, device=pixels.device)
    cut = 8 - level.clamp(0, 8)
    table = torch.where(kind == POSTERIZE, (levels >> cut) << cut, levels)
    table = torch.where((kind == SOLARIZE) & (levels >= level), 255 - levels, table)
    table = torch.where(kind == AUTO_CONTRAST, _stretching(flat, levels), table)
    table = torch.where(kind == EQUALIZE, _equalizing(flat, levels), table)
    return table.to(torch.uint8).gather(2, flat).view_as(pixels)


def _stretching(flat: Tensor, levels: Tensor) -> Tensor:
    """The table that makes a channel's smallest level 0 and its largest 255: ``(B, 3, 256)``."""
    smallest, largest = flat.amin(2, keepdim=True), flat.amax(2, keepdim=True)
    stretched = ((levels - smallest) * 255) // (largest - smallest).clamp(min=1)
    return torch.where(largest == smallest, levels, stretched.clamp(0, 255))


def _equalizing(flat: Tensor, levels: Tensor) -> Tensor:
    """The table after which about as many pixels have each level, as Pillow makes it: ``(B, 3, 256)``."""
    counts = torch.zeros((*flat.shape[:2], _LEVELS), dtype=torch.int64, device=flat.device)
    counts.scatter_add_(2, flat, torch.ones_like(flat))
    below = counts.cumsum(2)
    most = counts.gather(2, flat.amax(2, keepdim=True))
    step = (flat.shape[2] - most) // 255
    table = ((below - counts + step // 2) // step.clamp(min=1)).clamp(0, 255)
    return torch.where(step == 0, levels, table)


def moved(pixels: Tensor, matrix: tuple[Tensor, ...], fill: Tensor) -> Tensor:
    """Each image sheared, shifted or turned; a pixel takes the value that lies nearest to where it comes from.

    Shapes:
        pixels: ``(B, 3, S, S)`` uint8; returns the same.
        matrix: ``xx, xy, yx, yy, x0, y0``, each ``(B,)`` (:mod:`distill.data.operations`).
        fill: ``(3,)`` uint8 where that is outside.
    """
    batch, channels, size, _ = pixels.shape
    xx, xy, yx, yy, x0, y0 = (each.int()[:, None, None] for each in matrix)
    offset = 2 * torch.arange(size, device=pixels.device, dtype=torch.int32) - (size - 1)  # in half pixels
    y, x = offset[None, :, None], offset[None, None, :]
    middle = size << TURN_BITS
    ys = (yy * y + (yx * x + (y0 + middle))) >> (TURN_BITS + 1)
    xs = (xx * x + (xy * y + (x0 + middle))) >> (TURN_BITS + 1)
    outside = (ys < 0) | (ys >= size) | (xs < 0) | (xs >= size)
    place = fold(ys, size, "zero") * size + fold(xs, size, "zero")
    planes = pixels.view(batch, channels, size * size)
    values = planes.gather(2, place.long().view(batch, 1, -1).expand(-1, channels, -1)).view_as(pixels)
    bare = outside[:, None].to(torch.uint8) * 255
    return values ^ ((values ^ fill[:, None, None]) & bare)


def blurred(pixels: Tensor, weights: list[Tensor]) -> Tensor:
    """A Gaussian over rows, then columns, mirrored at the edge, rounded once.

    Shapes:
        pixels: ``(B, 3, S, S)`` uint8; returns the same.
        weights: At distances 0, 1, 2 ..., each ``(B,)`` in units of ``2**-BLUR_BITS``.
    """
    reach, size = len(weights) - 1, pixels.shape[-1]
    places = fold(torch.arange(-reach, size + reach, device=pixels.device), size, "reflect")
    values = pixels.int()
    for axis in (2, 3):
        wide = values.index_select(axis, places)
        values = wide.narrow(axis, reach, size) * _wide(weights[0])
        for far in range(1, reach + 1):
            pair = wide.narrow(axis, reach - far, size) + wide.narrow(axis, reach + far, size)
            values = values + pair * _wide(weights[far])
    return ((values + (1 << (2 * BLUR_BITS - 1))) >> (2 * BLUR_BITS)).to(torch.uint8)


def _wide(each: Tensor) -> Tensor:
    """A number of each image, int32 beside its pixels."""
    return each.int()[:, None, None, None]


def _levels(values: Tensor) -> Tensor:
    return values.clamp(0, 255).to(torch.uint8)
