"""``distill evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from distill.cli import options
from distill.cli.output import Output

__all__ = ["EXAMPLES", "command"]

EXAMPLES = options.examples("distill evaluate r18_small", "distill evaluate runs/r18_small/003 --split val --json")


def command(
    *,
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A run folder, or a name: its latest finished run.",
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
        bool, typer.Option("--plots/--no-plots", help="Draw the confusion matrix into the run's plots/.")
    ] = True,
    device: options.DeviceOption = None,
    threads: options.ThreadsOption = None,
    runs: options.RunsOption = Path("runs"),
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Measure a run: accuracy, precision, recall and F1 by class, calibration, confusion matrix."""
    from distill.assess import assess
    from distill.devices import resolve_device, set_threads
    from distill.report.evaluation import evaluation_table
    from distill.report.rows import Evaluation
    from distill.runs import open_run

    output = Output(json=json, quiet=quiet)
    if threads is not None:
        set_threads(threads)
    found = assess(open_run(run, runs_dir=runs), split=split, device=resolve_device(device), again=again)
    evaluation = Evaluation(found.run, found.split, found.result)
    output.show(evaluation, lambda width: evaluation_table(evaluation, width))
    if plots:
        from distill.report.plots import plot_confusion

        result, file = evaluation.result, Path(evaluation.run) / "plots" / f"confusion_{split}.svg"
        plot_confusion(result.confusion, [each.label for each in result.per_class], file)
        output.note(f"wrote {file}")
