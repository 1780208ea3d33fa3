"""The table of ``distill compare`` for a README and for a paper: Markdown, and LaTeX with booktabs.

Both have the columns that such tables usually have; CSV has every field.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from distill.report.comparison import comparison_columns, comparison_lines
from distill.report.layout import Column
from distill.results.rows import Comparison
from distill.text import plain

__all__ = ["LATEX_MARK", "MARKDOWN_MARK", "comparison_latex", "comparison_markdown"]

MARKDOWN_MARK = "<!-- distill compare -->"
"""What a Markdown table begins with that ``distill compare`` wrote, and so may replace."""
LATEX_MARK = "% distill compare"
"""The same of a LaTeX table."""

_UNITS = ("%", "MB", "points")
_ACTIVE = re.compile(r"([\\`*_{}\[\]<>#|~&$])")
_BEYOND = 0x180  # from here on letters that pdflatex with T1 has not
_HYPHENS = re.compile(r"-(?=-)")  # TeX makes a dash of two
_LATEX = {
    **{char: f"\\{char}" for char in "{}$&#_%"},
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    "'": r"\textquotesingle{}",
    '"': r"\textquotedbl{}",
    "\N{MINUS SIGN}": "$-$",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\N{EN DASH}": "--",
    "\N{GREEK CAPITAL LETTER DELTA}": r"$\Delta$",
}


def comparison_markdown(comparison: Comparison) -> str:
    """A GitHub-flavoured table, and below it, as a list, what its figures are of."""
    columns = _columns(comparison)
    lines = [
        MARKDOWN_MARK,
        "",
        _markdown_row(_heads(columns, _markdown)),
        _markdown_row("---" if is_words else "---:" for is_words in _words(columns)),
        *map(_markdown_row, _rows(columns, _markdown)),
        "",
        *(f"- {_markdown(line)}" for line in _told(comparison)),
    ]
    return "\n".join(lines) + "\n"


def comparison_latex(comparison: Comparison) -> str:
    """A ``tabular`` of the booktabs package; what its figures are of stands above it, in comments."""
    columns = _columns(comparison)
    rows = [*map(_latex_row, _rows(columns, _latex))]
    far = "" if all(ord(char) < _BEYOND for row in rows for char in row) else "; for these names lualatex or xelatex"
    lines = [
        f"{LATEX_MARK}; needs \\usepackage{{booktabs}} and \\usepackage[T1]{{fontenc}}{far}",
        "% where it is too wide: \\resizebox{\\linewidth}{!}{...} of the package graphicx",
        *(f"% {line}" for line in _told(comparison)),
        f"\\begin{{tabular}}{{{''.join('l' if is_words else 'r' for is_words in _words(columns))}}}",
        "\\toprule",
        _latex_row(_heads(columns, _latex)),
        "\\midrule",
        *rows,
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _columns(comparison: Comparison) -> list[Column]:
    """Those that a short table has, and of them those with a value."""
    key, *others = comparison_columns(comparison.rows)
    return [key, *(column for column in others if column.rank == 0 and not column.is_empty)]


def _words(columns: list[Column]) -> list[bool]:
    return [column.words for column in columns]


def _heads(columns: list[Column], escape: Callable[[str], str]) -> Iterator[str]:
    """A head's two lines as one: the second is a unit, a remark, or goes on with the first."""
    before = ""
    for column in columns:
        first, _, second = column.head.partition("\n")
        if column.joins and before.startswith("Δ"):  # a terminal's column says by where it stands what it is of
            second = f"{second} of the difference"
        before = first
        if second in _UNITS:
            yield escape(f"{first}, {second}")
        else:
            yield escape(f"{first} ({second})" if "," in first else f"{first} {second}".rstrip())


def _rows(columns: list[Column], escape: Callable[[str], str]) -> Iterator[list[str]]:
    cells = zip(*(column.cells for column in columns), strict=True)
    return ([escape(cell) for cell in row] for row in cells)


def _told(comparison: Comparison) -> list[str]:
    """What the figures are of, without what explains a column that a short table has not."""
    lines = [line for line in comparison_lines(comparison) if not line.startswith("on the front: ")]
    return [*lines, *(f"note: {plain(note)}" for note in comparison.notes)]


def _markdown(text: str) -> str:
    return _ACTIVE.sub(r"\\\1", plain(text).strip())


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _latex(text: str) -> str:
    spaced = len(text) - len(text.lstrip(" "))  # a file stands indented below the run that it was made from
    apart = "".join(_LATEX.get(char, char) for char in _HYPHENS.sub("-\0", plain(text).strip()))
    return ("\\quad " if spaced else "") + apart.replace("\0", "{}")


def _latex_row(cells: Iterable[str]) -> str:
    return f"{' & '.join(cells)} \\\\"
