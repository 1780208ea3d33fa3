"""The comparison as a picture: what a terminal would show, as an SVG that needs nothing from elsewhere."""

from __future__ import annotations

import io
import re

from rich.console import Console

from distill.report.comparison import comparison_table, comparison_width
from distill.results.rows import Comparison

__all__ = ["comparison_svg"]

_NARROWEST, _WIDEST = 60, 120  # characters: a page shows a wider picture with letters too small to read
_WEB_FONT = re.compile(r"@font-face\s*\{[^}]*\}\s*")  # rich's links a server; the fall-back is any monospaced font


def comparison_svg(comparison: Comparison, *, title: str = "distill compare") -> str:
    """The table as a terminal of 120 characters or fewer shows it; the same comparison gives the same bytes."""
    width = min(max(comparison_width(comparison), _NARROWEST), _WIDEST)
    console = Console(
        record=True,
        width=width,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    console.print(comparison_table(comparison, width))
    return _WEB_FONT.sub("", console.export_svg(title=title, unique_id="distill"))
