"""``distill report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distill.cli import options
from distill.cli.output import Output

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
    """Draw the curves of runs again: loss, accuracy and learning rate, into each run's plots/."""
    from distill.report.plots import plot_run
    from distill.runs import list_runs, open_run

    output = Output(json=json)
    if references:
        folders = [open_run(reference, runs_dir=runs, finished=False) for reference in references]
    else:
        folders = list_runs(runs)
    files = [path for folder in folders for path in plot_run(folder.metrics(), folder.path / "plots")]
    if json:
        output.json(files)
    elif files:
        output.text("\n".join(str(path) for path in files))
    else:
        output.note(f"no run below {runs} has finished an epoch")
