"""Tables that fit: where the screen is narrow, columns move below, and no number is ever cut."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from distill.text import MISSING, plain

__all__ = ["Column", "fitted", "key_values", "stacked", "table_width"]

_GAP = 2  # cells between columns: one of padding, one of the box
_PIECES = re.compile(r"[^/\\_. -]*[/\\_. -]+|[^/\\_. -]+")
_WIDEST_KEY = 32  # as long as there are other columns to show
_WIDEST_KEY_NARROW = 24  # on a screen of less than 100 cells


@dataclass(frozen=True)
class Column:
    """A head and one cell a row; the head may have two lines.

    Attributes:
        words: Cells are words, which may be folded; numbers never are.
        style: Of the whole column.
        rank: Where columns are left out for want of room, the highest rank goes first; 0 never goes.
        joins: It says something of the column before it: where columns move below, the two move together.
    """

    head: str
    cells: Sequence[str]
    words: bool = False
    style: str = ""
    rank: int = 0
    joins: bool = False

    @property
    def is_empty(self) -> bool:
        return all(cell in ("", MISSING) for cell in self.cells)

    @property
    def width(self) -> int:
        lines = [*self.head.split("\n"), *self.cells]
        return max((cell_len(plain(line)) for line in lines), default=0)


def stacked(columns: Sequence[Column], width: int, *, row_styles: Sequence[str] = ()) -> Group:
    """The columns side by side as far as ``width`` allows, the rest below, each part led by the first column.

    Columns without a single value are left out.
    """
    key, *others = columns
    others = [column for column in others if not column.is_empty]
    key_width = min(key.width, _WIDEST_KEY if width >= 100 else _WIDEST_KEY_NARROW, max(width // 2, 8))
    parts = _balanced(others, width - key_width)
    used = max(map(_width, parts))
    key_width = min(key.width, max(key_width, width - used))  # what the others leave free is the key's
    tables = [_table([key, *part], key_width, width, row_styles) for part in parts]
    return Group(*(each for table in tables for each in (table, Text())[: 1 if table is tables[-1] else 2]))


def fitted(columns: Sequence[Column], width: int, *, row_styles: Sequence[str] = ()) -> Group:
    """The columns side by side; where ``width`` is too small, columns are left out by rank, then moved below."""
    kept = list(columns)
    while table_width(kept) > width and (least := max(kept, key=lambda column: column.rank)).rank > 0:
        kept.remove(least)
    return stacked(kept, width, row_styles=row_styles)


def table_width(columns: Sequence[Column]) -> int:
    """Cells that all columns with a value need side by side."""
    key, *others = columns
    return min(key.width, _WIDEST_KEY) + _width([column for column in others if not column.is_empty])


def _balanced(columns: Sequence[Column], room: int) -> list[list[Column]]:
    """As few parts as fit, and of those the most even, so that the last one is not a single column."""
    units = _units(columns, room)
    fewest = len(_parts(units, room))
    narrowest = max(map(_width, units), default=0)
    tries = (_parts(units, less) for less in range(min(narrowest, room), room + 1))
    return next(parts for parts in tries if len(parts) == fewest)


def _units(columns: Sequence[Column], room: int) -> list[list[Column]]:
    """Each column with those that join it, as far as ``room`` allows."""
    units: list[list[Column]] = []
    for column in columns:
        if column.joins and units and _width([*units[-1], column]) <= room:
            units[-1].append(column)
        else:
            units.append([column])
    return units


def _parts(units: Sequence[list[Column]], room: int) -> list[list[Column]]:
    """Columns in their order, broken like words of a paragraph."""
    parts: list[list[Column]] = [[]]
    for unit in units:
        if parts[-1] and _width(parts[-1] + unit) > room:
            parts.append([])
        parts[-1] += unit
    return parts


def _width(columns: Sequence[Column]) -> int:
    return sum(_GAP + column.width for column in columns)


def _table(columns: Sequence[Column], key_width: int, width: int, row_styles: Sequence[str]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", show_edge=False)
    for place, column in enumerate(columns):
        justify: Literal["left", "right"] = "left" if column.words or place == 0 else "right"
        folds = place == 0 or (column.words and column.width > width - key_width - _GAP)
        table.add_column(
            Text(column.head, justify=justify),
            justify=justify,
            no_wrap=not folds,
            overflow="fold",
            style=column.style,
            max_width=key_width if place == 0 else None,
        )
    for row in range(len(columns[0].cells)):
        style = row_styles[row] if row_styles else ""
        key, *cells = (plain(column.cells[row]) for column in columns)
        table.add_row(Text(_broken(key, key_width)), *(Text(cell) for cell in cells), style=style)
    return table


def _broken(name: str, width: int) -> str:
    """A name or path in lines of at most ``width`` cells, broken behind its separators as far as it has some."""
    lines = [""]
    for piece in _PIECES.findall(name) if cell_len(name) > width else [name]:
        if lines[-1] and cell_len(lines[-1] + piece) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(lines)


def key_values(pairs: Sequence[tuple[str, str]]) -> RenderableType:
    """Two columns without a head: what, and its value."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(Text(name), Text(plain(value)))
    return table
