"""What was seen in a folder of pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import RenderableType

from distill.evaluation.statistics import share_interval
from distill.report.layout import key_values
from distill.text import count, counted, duration, percent, plain

if TYPE_CHECKING:
    from distill.data.survey import Survey

__all__ = ["draft_table"]

_FOR = {"test": "for testing", "val": "for validation"}
_USUAL = 0.9  # an accuracy to say it of


def draft_table(seen: Survey, set_aside: Mapping[str, int], unlabelled: int = 0) -> RenderableType:
    """Classes, counts, what the recipes set aside, sizes and imbalance.

    Args:
        set_aside: Of the training pictures, for ``test`` and for ``val``; what has no own folder.
        unlabelled: Pictures that have no label.
    """
    low, high = seen.sides
    few, many = min(seen.per_class), max(seen.per_class)
    each = count(few) if few == many else f"{count(few)} to {count(many)}"
    left = seen.counts["train"] - sum(set_aside.values())
    aside = ", ".join(f"{count(n)} {_FOR[split]}" for split, n in set_aside.items())
    note = [] if seen.note is None else [("note", plain(seen.note))]
    return key_values(
        [
            ("classes", f"{count(len(seen.classes))}, {each} training pictures each"),
            ("pictures", ", ".join(f"{count(n)} {split}" for split, n in seen.counts.items())),
            *([("without labels", f"{count(unlabelled)}, for the student")] if unlabelled else []),
            *([("set aside", f"of the training pictures {aside}; {count(left)} to train on")] if aside else []),
            ("testing", _known_to(max(1, seen.counts.get("test", 0) or set_aside["test"]))),
            ("sizes", f"shorter sides of {seen.side} pixels in the median, {low} to {high} in a sample"),
            ("decoding", f"about {duration(seen.decode_all_s)}, once"),
            *note,
        ]
    )


def _known_to(images: int) -> str:
    """How far off the accuracy that ``images`` test images show may be, on either side."""
    found = share_interval(round(_USUAL * images), images)
    points = f"{100 * (found.high - found.low) / 2:.2g}"
    return f"{counted(images, 'image')}: an accuracy of {percent(_USUAL, 0)}% is known to ±{points} points (95%)"
