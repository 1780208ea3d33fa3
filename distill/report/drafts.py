"""What was seen in a folder of pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import RenderableType

from distill.report.layout import key_values
from distill.text import count, duration

if TYPE_CHECKING:
    from distill.data.survey import Survey

__all__ = ["draft_table"]


def draft_table(found: Survey) -> RenderableType:
    """Classes, counts, sizes and imbalance."""
    low, high = found.sides
    few, many = min(found.per_class), max(found.per_class)
    return key_values(
        [
            ("classes", f"{count(len(found.classes))}, {count(few)} to {count(many)} training pictures each"),
            ("pictures", ", ".join(f"{count(n)} {split}" for split, n in found.counts.items())),
            ("sizes", f"shorter sides of {found.side} pixels in the median, {low} to {high} in a sample"),
            ("decoding", f"about {duration(found.decode_all_s)}, once"),
        ]
    )
