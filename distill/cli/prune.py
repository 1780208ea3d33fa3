"""``distill prune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distill.cli import options
from distill.cli.output import Output
from distill.cli.progress import ProgressPrinter

__all__ = ["EXAMPLES", "command"]

EXAMPLES = options.examples(
    "distill prune r18_small --macs 0.5",
    "distill prune r18_small --params 1000000 --criterion taylor --epochs 40",
    "distill prune r18_small --latency-ms 5 --no-train",
)

_GOAL = "Goal (one of them)"


def command(
    *,
    run: options.RunArgument,
    macs: Annotated[
        float | None,
        typer.Option(
            "--macs",
            metavar="SHARE",
            help="Fraction of multiply-accumulates to keep, such as 0.5.",
            show_default=False,
            rich_help_panel=_GOAL,
        ),
    ] = None,
    params: Annotated[
        int | None,
        typer.Option("--params", metavar="N", help="Maximum parameters.", show_default=False, rich_help_panel=_GOAL),
    ] = None,
    latency_ms: Annotated[
        float | None,
        typer.Option(
            "--latency-ms",
            metavar="MS",
            help="Maximum milliseconds for one image, in PyTorch on this machine's CPU.",
            show_default=False,
            rich_help_panel=_GOAL,
        ),
    ] = None,
    criterion: options.CriterionOption = "l2",
    multiple: Annotated[
        int,
        typer.Option("--multiple", min=1, metavar="N", help="Keep widths multiples of N.", rich_help_panel=options.CUT),
    ] = 8,
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            min=1,
            metavar="N",
            help="Epochs of fine-tuning.",
            show_default="as many as the run had",
            rich_help_panel=options.CUT,
        ),
    ] = None,
    train: Annotated[
        bool,
        typer.Option(
            "--train/--no-train", help="Fine-tune the result as the run was trained.", rich_help_panel=options.CUT
        ),
    ] = True,
    device: options.DeviceOption = None,
    threads: options.ThreadsOption = None,
    runs: options.RunsOption = Path("runs"),
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Prune channels of a run's network until it is small or fast enough, then fine-tune it.

    The result is a run like any other: its recipe states every width, its teacher and bank are those of the source
    run. Coupled channels are removed together, following the network's dependency graph.
    """
    from distill.pipeline import Options, prune
    from distill.report.deployment import pruned_table

    output = Output(json=json, quiet=quiet)
    with ProgressPrinter(quiet=quiet) as printer:
        settings = Options(runs_dir=runs, device=device, threads=threads, command=options.typed(), on_event=printer)
        made = prune(
            run,
            macs=macs,
            params=params,
            latency_ms=latency_ms,
            criterion=criterion,
            multiple=multiple,
            epochs=epochs,
            train=train,
            options=settings,
        )
    output.show(made, lambda width: pruned_table(made, width))
