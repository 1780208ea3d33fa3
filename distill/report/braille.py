"""Curves in the cells of a terminal: eight dots a cell, or a letter a cell where such signs or colours are missing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from rich.text import Text

__all__ = ["Series", "curves"]

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # by row and column of a cell, as Unicode has them
_BLANK = 0x2800


@dataclass(frozen=True)
class Series:
    """A line through points ``(x, y)`` of rising x; ``letter`` stands for it where colours are missing."""

    points: Sequence[tuple[float, float]]
    style: str
    letter: str


def curves(
    shown: Sequence[Series],
    *,
    width: int,
    height: int,
    x: tuple[float, float],
    y: tuple[float, float],
    letters: bool = False,
) -> list[Text]:
    """The lines of a picture of ``width`` times ``height`` cells, the top one first; later series are drawn over.

    Args:
        x, y: What the picture's sides are; points outside are left out.
        letters: One letter a cell, without colours.
    """
    across, down = (1, 1) if letters else (2, 4)
    cells: dict[tuple[int, int], tuple[int, Series]] = {}
    for series in shown:
        for column, row in _dots(series.points, (width * across, height * down), x, y):
            place = (row // down, column // across)
            bits, owner = cells.get(place, (0, series))
            bit = _DOTS[row % 4][column % 2] if not letters else 1
            cells[place] = ((bits if owner is series else 0) | bit, series)
    lines = []
    for row in range(height):
        line = Text(no_wrap=True)
        for column in range(width):
            if (cell := cells.get((row, column))) is None:
                line.append(" ")
            elif letters:
                line.append(cell[1].letter)
            else:
                line.append(chr(_BLANK + cell[0]), style=cell[1].style)
        lines.append(line)
    return lines


def _dots(
    points: Sequence[tuple[float, float]], size: tuple[int, int], x: tuple[float, float], y: tuple[float, float]
) -> list[tuple[int, int]]:
    """Columns and rows of a line's dots, row 0 on top."""
    places = [
        (_place(px, x, size[0]), size[1] - 1 - _place(py, y, size[1]))
        for px, py in points
        if x[0] <= px <= x[1] and y[0] <= py <= y[1] and math.isfinite(py)
    ]
    found = places[:1]
    for (x0, y0), (x1, y1) in pairwise(places):
        steps = max(abs(x1 - x0), abs(y1 - y0))
        found += [
            (round(x0 + (x1 - x0) * step / steps), round(y0 + (y1 - y0) * step / steps)) for step in range(1, steps + 1)
        ]
    return found


def _place(value: float, ends: tuple[float, float], size: int) -> int:
    low, high = ends
    return min(int((value - low) / (high - low) * size), size - 1) if high > low else size // 2
