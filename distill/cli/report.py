"""``distill report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distill.cli import completion, options
from distill.cli.output import Output
from distill.cli.progress import ProgressPrinter
from distill.errors import RunError, UsageError

__all__ = ["EXAMPLES", "command"]

EXAMPLES = options.examples(
    "distill report",
    "distill report r18_small",
    "distill report --html report.html",
    "distill report --html report.html resnet152_cifar10 r18_small exports/r18_small_int8.onnx",
)

_PAGE = "One page"


def command(
    *,
    references: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUNS",
            help="Run folders or names of runs; with --html exported files too.",
            show_default="all runs; with --html the newest of every recipe and seed",
            autocompletion=completion.complete_runs,
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="FILE",
            help="Measure the runs side by side, and write the results as one self-contained page.",
            show_default=False,
            rich_help_panel=_PAGE,
        ),
    ] = None,
    title: Annotated[
        str | None,
        typer.Option(
            "--title",
            metavar="TEXT",
            help="The page's title.",
            show_default="the data sets' names",
            rich_help_panel=_PAGE,
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            "-b",
            metavar="ROW",
            help="The row that all others are compared with: a name, a folder, a role.",
            show_default="as for compare: the run without a teacher",
            rich_help_panel=_PAGE,
            autocompletion=completion.complete_runs,
        ),
    ] = None,
    latency: Annotated[
        bool, typer.Option("--latency/--no-latency", help="Time the models alternately.", rich_help_panel=_PAGE)
    ] = True,
    overwrite: options.ReplaceOption = False,
    device: options.DeviceOption = None,
    threads: options.TimingThreadsOption = 1,
    runs: options.RunsOption = Path("runs"),
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Redraw the plots of runs or, with --html, write one page that summarises them.

    Without --html: curves go to plots/, confusion and classes to evaluation/. The page has the verdict and its
    certainty, the table, accuracy against cost, curves of all seeds, calibration, what the student lost against its
    teacher, the hardest images, the recipes' differences, and where all of it came from.
    """
    output = Output(json=json, quiet=quiet)
    if html is None:
        _check_plain(title=title, baseline=baseline, no_latency=not latency, overwrite=overwrite, device=device)
        _redrawn(references or [], runs, output)
        return
    from distill.pipeline import Options
    from distill.pipeline.page import write_page

    with ProgressPrinter(quiet=quiet) as printer:
        file = write_page(
            references or [],
            out=html,
            title=title,
            latency=latency,
            baseline=baseline,
            overwrite=overwrite,
            options=Options(
                runs_dir=runs, device=device, timing_threads=threads, command=options.typed(), on_event=printer
            ),
        )
    if json:
        output.json([file])
    else:
        output.text(str(file))


def _check_plain(**given: object) -> None:
    """Pictures that are drawn again measure nothing: what says how would be ignored."""
    if extra := [f"--{name.replace('_', '-')}" for name, value in given.items() if value]:
        raise UsageError(f"{', '.join(extra)}: of a page alone", hint="distill report --html report.html")


def _redrawn(references: list[str], runs: Path, output: Output) -> None:
    from distill.report.redraw import redraw
    from distill.runs import list_runs, open_run

    named = [open_run(reference, runs_dir=runs, finished=False) for reference in references]
    files: list[Path] = []
    for folder in named or list_runs(runs):
        try:
            files += redraw(folder)
        except RunError as error:
            if named:
                raise
            output.warning(f"left out: {error.message}")
    if output.is_json:
        output.json(files)
    elif files:
        output.text("\n".join(str(path) for path in files))
    else:
        output.note(f"no run below {runs} has finished an epoch")
