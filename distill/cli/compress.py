"""``distill compress``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from distill.cli import options
from distill.cli.output import Output
from distill.cli.progress import ProgressPrinter

__all__ = ["EXAMPLES", "command"]

EXAMPLES = options.examples(
    "distill compress r18_small --max-drop 0.003",
    "distill compress r18_small --goal size --trials 6 --epochs 30",
    "distill compress r18_small --trials 0    # quantise and export it as it is",
)


def command(
    *,
    run: options.RunArgument,
    max_drop: options.MaxDropOption = 0.003,
    prove: options.ProveOption = False,
    goal: Annotated[
        Literal["latency", "size", "macs"],
        typer.Option(
            "--goal",
            help="What to minimise: latency (measured) and macs cut multiply-accumulates, size cuts parameters.",
            rich_help_panel=options.CUT,
        ),
    ] = "latency",
    trials: Annotated[
        int,
        typer.Option(
            "--trials", min=0, metavar="N", help="Maximum number of cuts to try.", rich_help_panel=options.CUT
        ),
    ] = 4,
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            min=1,
            metavar="N",
            help="Epochs of fine-tuning after each cut.",
            show_default="as many as the run had",
            rich_help_panel=options.CUT,
        ),
    ] = None,
    criterion: options.CriterionOption = "l2",
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            metavar="NAME",
            help="Name of the chain's folder: compressed/NAME beside the runs folder.",
            show_default="the recipe's",
            rich_help_panel="Run folders",
        ),
    ] = None,
    device: options.DeviceOption = None,
    threads: options.ThreadsOption = None,
    runs: options.RunsOption = Path("runs"),
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Prune, fine-tune, quantise and export a student, and show each step's accuracy loss.

    Cuts are found by bisection; the int8 file of each is judged by its total accuracy loss against the run on
    validation images. All learn from the run's own bank: none runs the teacher. Run the same command again to continue
    a stopped chain. Exits with 3 if no int8 file of the run itself meets --max-drop.
    """
    from distill.pipeline import Options, compress
    from distill.report.deployment import compressed_table

    output = Output(json=json, quiet=quiet)
    with ProgressPrinter(quiet=quiet) as printer:
        settings = Options(
            runs_dir=runs,
            device=device,
            threads=threads,
            timing_threads=threads,
            command=options.typed(),
            on_event=printer,
        )
        made = compress(
            run,
            max_drop=max_drop,
            prove=prove,
            goal=goal,
            trials=trials,
            epochs=epochs,
            criterion=criterion,
            name=name,
            options=settings,
        )
    output.show(made, lambda width: compressed_table(made, width))
