"""What was seen in a folder of pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import RenderableType

from distill.report.layout import key_values
from distill.text import count, duration, plain

if TYPE_CHECKING:
    from distill.data.survey import Survey

__all__ = ["draft_table"]


def draft_table(survey: Survey) -> RenderableType:
    """Classes, counts, sizes and imbalance."""
    low, high = survey.sides
    few, many = min(survey.per_class), max(survey.per_class)
    note = [] if survey.note is None else [("note", plain(survey.note))]
    return key_values(
        [
            ("classes", f"{count(len(survey.classes))}, {count(few)} to {count(many)} training pictures each"),
            ("pictures", ", ".join(f"{count(n)} {split}" for split, n in survey.counts.items())),
            ("sizes", f"shorter sides of {survey.side} pixels in the median, {low} to {high} in a sample"),
            ("decoding", f"about {duration(survey.decode_all_s)}, once"),
            *note,
        ]
    )
