"""Tables of runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

from distill.report.layout import Column, stacked
from distill.text import MISSING, count, fixed, percent

if TYPE_CHECKING:
    from distill.runs.remove import RunRow

__all__ = ["runs_table"]


def runs_table(rows: Sequence[RunRow], width: int) -> RenderableType:
    """A line for each run."""
    if not rows:
        return Text("no runs", style="dim")
    columns = [
        Column("run", [row.run for row in rows], words=True, style="bold"),
        Column("role", [row.role for row in rows], words=True),
        Column("status", [row.status for row in rows], words=True),
        Column("started", [(row.started or MISSING)[:16].replace("T", " ") for row in rows], words=True),
        Column("epochs", [_epochs(row) for row in rows]),
        Column("val top-1\n%", [percent(row.val_top1) for row in rows]),
        Column("size\nMB", [fixed(row.size_bytes / 1e6, 1) for row in rows]),
        Column("needed by", [_users(row) for row in rows], words=True),
    ]
    return stacked(columns, width)


def _epochs(row: RunRow) -> str:
    """Done, of all; none of a finished run that was not trained here: it was cut, or came trained."""
    if row.status == "finished" and not row.epochs:
        return MISSING
    return f"{count(row.epochs)}/{count(row.of_epochs)}"


def _users(row: RunRow) -> str:
    if not row.needed_by:
        return ""
    return row.needed_by[0] + (f" and {len(row.needed_by) - 1} more" if len(row.needed_by) > 1 else "")
