"""Tables of what is kept to be used again: teachers' answers, decoded images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import RenderableType

from distill.report.layout import Column, stacked
from distill.results.rows import BankRow, DecodedSet
from distill.text import MISSING, count, fixed, percent

__all__ = ["banks_table", "decoded_table"]


def banks_table(banks: Sequence[BankRow], width: int) -> RenderableType:
    """Stored teacher logits."""
    columns = [
        Column("bank", [Path(row.path).name for row in banks], words=True, style="bold"),
        Column("teacher", [row.teacher for row in banks], words=True),
        Column("dataset", [row.dataset for row in banks], words=True),
        Column("images", [count(row.images) for row in banks]),
        Column("views", [count(row.views) for row in banks]),
        Column("dtype", [row.dtype for row in banks], words=True),
        Column("size\nMB", [fixed(row.size_mb, 1) for row in banks]),
        Column("teacher's\ntop-1 %", [percent(row.teacher_top1) for row in banks]),
        Column("augmentation", [row.augment or "" for row in banks], words=True),
        Column("view\nseed", ["" if row.view_seed is None else str(row.view_seed) for row in banks]),
        Column("asked\nagain", [count(row.asked) for row in banks]),
        Column("largest\ndifference", [_difference(row.max_difference) for row in banks]),
        Column("status", [row.status for row in banks], words=True),
        Column("folder", [row.path for row in banks], words=True),
    ]
    return stacked(columns, width)


def _difference(value: float | None) -> str:
    return MISSING if value is None else f"{value:.2g}"


def decoded_table(sets: Sequence[DecodedSet], width: int) -> RenderableType:
    """Decoded images on this machine."""
    columns = [
        Column("decoded from", [each.source for each in sets], words=True, style="bold"),
        Column("images", [", ".join(f"{name} {count(n)}" for name, n in each.images.items()) for each in sets]),
        Column("side", [count(each.image_size) for each in sets]),
        Column("size\nMB", [fixed(each.size_mb, 1) for each in sets]),
        Column("made", [each.made[:16].replace("T", " ") for each in sets], words=True),
        Column("folder", [each.folder for each in sets], words=True),
    ]
    return stacked(columns, width)
