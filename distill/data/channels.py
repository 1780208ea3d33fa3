"""Mean and standard deviation of images' channels, from exact sums: the same in whatever blocks images come."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["ChannelStats", "ChannelSums"]


@dataclass(frozen=True)
class ChannelStats:
    """Mean and (population) standard deviation of each channel of pixels in 0..1, to 6 decimals."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class ChannelSums:
    """Adds up images that come one block after another, and keeps none."""

    def __init__(self) -> None:
        self._pixels = 0
        self._sums, self._squares = [0, 0, 0], [0, 0, 0]  # Python's own: a million images are beyond 64 bits

    def add(self, block: np.ndarray) -> None:
        """The next images: uint8 ``(k, 3, S, S)``, of which the float64 copy takes eight times as much."""
        values = block.astype(np.float64)  # whole numbers below 2**53 add up exactly, in any order
        self._pixels += values.shape[0] * values.shape[2] * values.shape[3]
        self._sums = _added(self._sums, values)
        self._squares = _added(self._squares, np.square(values, out=values))

    def stats(self) -> ChannelStats:
        """Of all images so far; of none, zeros."""
        count = max(self._pixels, 1)
        mean = [round(total / (255 * count), 6) for total in self._sums]
        pairs = zip(self._sums, self._squares, strict=True)
        std = [round(((count * squares - total * total) / count**2) ** 0.5 / 255, 6) for total, squares in pairs]
        return ChannelStats(mean=(mean[0], mean[1], mean[2]), std=(std[0], std[1], std[2]))


def _added(totals: list[int], values: np.ndarray) -> list[int]:
    return [total + int(more) for total, more in zip(totals, values.sum(axis=(0, 2, 3)), strict=True)]
