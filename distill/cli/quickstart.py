"""``distill quickstart``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distill.cli import options
from distill.cli.output import Output
from distill.cli.progress import ProgressPrinter

__all__ = ["EXAMPLES", "command"]

EXAMPLES = options.examples("distill quickstart", "distill quickstart --seeds 1 --runs /tmp/tour --json")


def command(
    *,
    seeds: Annotated[int, typer.Option("--seeds", min=1, metavar="N", help="Train each student with N seeds.")] = 3,
    device: options.DeviceOption = None,
    threads: options.ThreadsOption = None,
    runs: options.RunsOption = Path("runs"),
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Run the whole pipeline on built-in data, in a minute or two on a laptop CPU.

    Fine-tunes a small teacher on scikit-learn's digits, trains a student on labels only and the same student with the
    teacher, exports the distilled one as an int8 file, and prints the comparison. Needs no internet. Every other
    command works on its runs.
    """
    from distill.comparison import compare
    from distill.pipeline import Options, quickstart
    from distill.report.comparison import comparison_table
    from distill.team.stop import stopping_saves

    output = Output(json=json, quiet=quiet)
    with ProgressPrinter(quiet=quiet) as printer:
        settings = Options(runs_dir=runs, device=device, threads=threads, command=options.typed(), on_event=printer)
        made = quickstart(seeds=seeds, options=settings)
        references = [str(path) for path in (*made.runs, *made.files)]
        where = options.elsewhere(runs)
        with stopping_saves(f"the quickstart in {runs}", hint=f"its table: distill compare{where}"):
            comparison = compare(references, runs_dir=runs, device=device, tell=printer)
    output.show(comparison, lambda width: comparison_table(comparison, width))
    output.note(f"the runs are in {runs}{''.join(f', the int8 file is {path}' for path in made.files)}")
    output.note(f"next: distill evaluate quickstart_student{where}")
