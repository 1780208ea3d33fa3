"""How numbers, durations and the user's own words are written, everywhere alike."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = [
    "MISSING",
    "brief",
    "count",
    "counted",
    "csv_text",
    "cut",
    "duration",
    "first_line",
    "fixed",
    "item_lines",
    "percent",
    "plain",
    "plain_lines",
    "several",
    "short_number",
    "shorten",
    "signed",
    "significant",
]

MISSING = "\N{EN DASH}"


def plain(text: object) -> str:
    r"""``text`` with control characters spelled out: a file's name must not move the cursor or colour the screen.

    Line ends are spelled out too, and so are bytes of a name that are no UTF-8.

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
    return char.encode("unicode_escape").decode()


def cut(text: str, most: int) -> str:
    """``text``, without its end where it is longer than ``most``.

    >>> cut("a long label", 7)
    'a long…'
    """
    return text if len(text) <= most else f"{text[: most - 1]}…"


def shorten(text: str, most: int = 60) -> str:
    """``text``, without its middle where it is longer than ``most``.

    >>> shorten("/a/long/path", 9)
    '/a/...ath'
    """
    half = (most - 3) // 2
    return text if len(text) <= most else f"{text[:half]}...{text[-half:]}"


def several(names: Sequence[str], most: int) -> str:
    """The first names, and how many there are besides.

    >>> several(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    shown = ", ".join(plain(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most:,} more"


def brief(value: object) -> str:
    """A value in a sentence: of a digest its beginning.

    >>> brief("0" * 64)
    '000000000000'
    """
    text = str(value)
    return text[:12] if len(text) == 64 and set(text) <= set("0123456789abcdef") else text


def item_lines(items: Sequence[str], most: int) -> list[str]:
    """The first items, one a line, and how many there are besides.

    >>> item_lines(["a", "b", "c"], most=2)
    ['  a', '  b', '  and 1 more']
    """
    more = [f"  and {len(items) - most:,} more"] if len(items) > most else []
    return [f"  {plain(item)}" for item in items[:most]] + more


def first_line(error: BaseException) -> str:
    r"""What an error says, in one line; its type where it says nothing.

    >>> first_line(ValueError("no such name\nat 0x1")), first_line(KeyboardInterrupt())
    ('no such name', 'KeyboardInterrupt')
    """
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def fixed(value: float | None, digits: int) -> str:
    """A number with so many digits behind the point, thousands separated.

    >>> fixed(12345.678, 1)
    '12,345.7'
    """
    return MISSING if value is None or math.isnan(value) else f"{value:,.{digits}f}"


def count(value: float | None) -> str:
    """A whole number, thousands separated."""
    return fixed(value, 0)


def counted(n: int, noun: str) -> str:
    """A number of things, each called by a noun whose plural ends in s.

    >>> counted(1, "thread"), counted(2_000, "image")
    ('1 thread', '2,000 images')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def percent(fraction: float | None, digits: int = 2) -> str:
    """A fraction as a percentage, without its sign: the column's head has it.

    >>> percent(0.9345)
    '93.45'
    """
    return MISSING if fraction is None else fixed(100 * fraction, digits)


def signed(fraction: float | None, digits: int = 2) -> str:
    """A difference of fractions in percentage points, with its sign.

    >>> signed(-0.0167), signed(-0.0)
    ('\N{MINUS SIGN}1.67', '+0.00')
    """
    if fraction is None:
        return MISSING
    return f"{round(100 * fraction, digits) + 0.0:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def significant(value: float | None) -> str:
    """Three digits that mean something, whatever the size.

    >>> significant(0.000417), significant(78.2)
    ('0.000417', '78.20')
    """
    if value is None:
        return MISSING
    return f"{value:.3g}" if 0 < abs(value) < 1 else fixed(value, 2)


def short_number(value: float) -> str:
    """As an axis has it: 200000 is 200k.

    >>> [short_number(value) for value in (0.5, 20, 200_000, 999_999, 5_000_000, 0.0123)]
    ['0.5', '20', '200k', '1M', '5M', '0.0123']
    """
    rounded = float(f"{value:.3g}")
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(rounded) >= size:
            return f"{rounded / size:.3g}{suffix}"
    return f"{rounded:.3g}"


def duration(seconds: float | None) -> str:
    """Seconds as people say them.

    >>> [duration(s) for s in (0.42, 7.0, 62, 3720, 180_000)]
    ['0.4s', '7.0s', '1m02s', '1h02m', '2d02h']
    """
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 59.95:
        return f"{seconds:.1f}s"
    rounded = round(seconds)
    if rounded < 3600:
        return f"{rounded // 60}m{rounded % 60:02d}s"
    if rounded < 48 * 3600:
        return f"{rounded // 3600}h{rounded % 3600 // 60:02d}m"
    return f"{rounded // 86400}d{rounded % 86400 // 3600:02d}h"


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
    if isinstance(value, tuple):  # as of several seeds
        return " ".join(map(str, value))
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value
