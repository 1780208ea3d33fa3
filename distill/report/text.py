"""How numbers, durations and the user's own words are written, everywhere alike."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["MISSING", "count", "csv_text", "duration", "fixed", "percent", "plain", "plain_lines"]

MISSING = "\N{EN DASH}"


def plain(text: object) -> str:
    r"""``text`` with control characters spelled out: a file's name must not move the cursor or colour the screen.

    >>> plain("a\x1b[31mb")
    'a\\x1b[31mb'
    """
    return "".join(char if char.isprintable() else _spelled(char) for char in str(text))


def plain_lines(text: str) -> str:
    r"""Several lines of text, tabs and all, with every other control character spelled out.

    >>> plain_lines("a\tb\nc\rd")
    'a\tb\nc\\rd'
    """
    return "".join(char if char.isprintable() or char in "\n\t" else _spelled(char) for char in text)


def _spelled(char: str) -> str:
    if "\ud800" <= char <= "\udfff":  # an undecodable byte in a file's name
        return "\N{REPLACEMENT CHARACTER}"
    return char.encode("unicode_escape").decode()


def fixed(value: float | None, digits: int) -> str:
    """A number with so many digits behind the point, thousands separated.

    >>> fixed(12345.678, 1)
    '12,345.7'
    """
    return MISSING if value is None or math.isnan(value) else f"{value:,.{digits}f}"


def count(value: float | None) -> str:
    """A whole number, thousands separated."""
    return fixed(value, 0)


def percent(fraction: float | None, digits: int = 2) -> str:
    """A fraction as a percentage, without its sign: the column's head has it.

    >>> percent(0.9345)
    '93.45'
    """
    return MISSING if fraction is None else fixed(100 * fraction, digits)


def duration(seconds: float | None) -> str:
    """Seconds as people say them.

    >>> [duration(s) for s in (0.42, 7.0, 62, 3720, 180_000)]
    ['0.4s', '7.0s', '1m02s', '1h02m', '2d02h']
    """
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 59.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 48 * 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """CSV with every digit; what is missing is empty; words a spreadsheet would take for a formula get a quote."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_csv_cell(value) for value in row] for row in rows)
    return buffer.getvalue()


def _csv_cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value
