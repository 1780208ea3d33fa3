"""A comparison that shows itself: a table where Python prints it, HTML in a notebook, a data frame on request."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from typing import IO, TYPE_CHECKING, cast

from distill.errors import MissingError
from distill.results.rows import Comparison

if TYPE_CHECKING:
    import pandas

__all__ = ["Shown"]

_NARROWEST = 60


@dataclass(frozen=True, repr=False)
class Shown(Comparison):
    """A :class:`Comparison` for people at a prompt."""

    def __repr__(self) -> str:
        from rich.console import Console

        from distill.report.comparison import comparison_table

        width = max(shutil.get_terminal_size().columns, _NARROWEST)
        console = Console(width=width, highlight=False, color_system=None, force_terminal=False)
        with console.capture() as captured:
            console.print(comparison_table(self, width))
        return captured.get().rstrip("\n")

    def _repr_html_(self) -> str:
        """What a notebook shows: names and all other texts are escaped."""
        from rich.console import Console

        from distill.report.comparison import comparison_table

        console = Console(width=140, highlight=False, record=True, file=cast("IO[str]", _Nowhere()))
        console.print(comparison_table(self, 140))
        style = "font-family:monospace;line-height:1.3;white-space:pre;overflow-x:auto"
        return console.export_html(inline_styles=True, code_format=f'<pre style="{style}">{{code}}</pre>')

    def to_pandas(self) -> pandas.DataFrame:
        """One row a model, one column a figure, as in ``--json``.

        Raises:
            MissingError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise MissingError("to_pandas() needs pandas", hint="python -m pip install pandas") from error
        return pandas.DataFrame([asdict(row) for row in self.rows])


class _Nowhere:
    """A file that keeps nothing: rich records what it would have written."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass
