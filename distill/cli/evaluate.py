"""``distill evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from distill.cli import options
from distill.cli.output import Output
from distill.cli.progress import ProgressPrinter

__all__ = ["EXAMPLES", "command"]

EXAMPLES = options.examples("distill evaluate r18_small", "distill evaluate runs/r18_small/003 --split val --json")


def command(
    *,
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A run folder, a name (its latest finished run), or an exported file.",
            show_default=False,
            autocompletion=options.complete_runs,
        ),
    ],
    split: Annotated[
        Literal["test", "val"],
        typer.Option("--split", help="Which images: the test set, or those that picked the checkpoint."),
    ] = "test",
    again: Annotated[
        bool, typer.Option("--again", help="Ask the network even where an earlier answer is stored.")
    ] = False,
    plots: Annotated[
        bool, typer.Option("--plots/--no-plots", help="Draw confusion matrix and classes into the run's evaluation/.")
    ] = True,
    tta: Annotated[
        Literal["none", "flip"],
        typer.Option(
            "--tta", help="Test-time augmentation; flip: an image and its mirror image. It is told and kept nowhere."
        ),
    ] = "none",
    device: options.DeviceOption = None,
    threads: options.ThreadsOption = None,
    runs: options.RunsOption = Path("runs"),
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Measure a run: accuracy, precision, recall and F1 by class, calibration, confusion matrix."""
    from distill.pipeline import Options, evaluate_run
    from distill.report.evaluation import evaluation_table

    output = Output(json=json, quiet=quiet)
    with ProgressPrinter(quiet=quiet) as printer:
        settings = Options(runs_dir=runs, device=device, threads=threads, on_event=printer)
        evaluation = evaluate_run(run, split=split, again=again, plots=plots, tta=tta, options=settings)
    output.show(evaluation, lambda width: evaluation_table(evaluation, width))
    for file in evaluation.plots:
        output.note(f"wrote {file}")
