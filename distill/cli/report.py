"""``distill report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distill.cli import options
from distill.cli.output import Output
from distill.errors import RunError

__all__ = ["EXAMPLES", "command"]

EXAMPLES = options.examples("distill report", "distill report r18_small")


def command(
    *,
    references: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUNS]...",
            help="Run folders or names of runs.",
            show_default="all runs",
            autocompletion=options.complete_runs,
        ),
    ] = None,
    runs: options.RunsOption = Path("runs"),
    json: options.JsonOption = False,
) -> None:
    """Draw the pictures of runs again: curves into plots/, confusion and classes into evaluation/."""
    from distill.report.redraw import redraw
    from distill.runs import list_runs, open_run

    output = Output(json=json)
    named = [open_run(reference, runs_dir=runs, finished=False) for reference in references or ()]
    files: list[Path] = []
    for folder in named or list_runs(runs):
        try:
            files += redraw(folder)
        except RunError as error:
            if named:
                raise
            output.warning(f"left out: {error.message}")
    if json:
        output.json(files)
    elif files:
        output.text("\n".join(str(path) for path in files))
    else:
        output.note(f"no run below {runs} has finished an epoch")
