"""``distill prune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

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
_CUT = "Cut"


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
    macs: Annotated[
        float | None,
        typer.Option(
            "--macs",
            metavar="SHARE",
            help="The share of multiply-accumulates that may stay: 0.5.",
            show_default=False,
            rich_help_panel=_GOAL,
        ),
    ] = None,
    params: Annotated[
        int | None,
        typer.Option("--params", metavar="N", help="The most parameters.", show_default=False, rich_help_panel=_GOAL),
    ] = None,
    latency_ms: Annotated[
        float | None,
        typer.Option(
            "--latency-ms",
            metavar="MS",
            help="The most milliseconds for one image, in PyTorch on this machine's CPU.",
            show_default=False,
            rich_help_panel=_GOAL,
        ),
    ] = None,
    criterion: Annotated[
        Literal["l2", "bn", "taylor"],
        typer.Option(
            "--criterion",
            help="How channels are ranked: by the L2 norm of their weights, by the scale of their batch norm, or by "
            "a first-order Taylor estimate of the loss increase.",
            rich_help_panel=_CUT,
        ),
    ] = "l2",
    multiple: Annotated[
        int,
        typer.Option("--multiple", min=1, metavar="N", help="Widths stay multiples of N.", rich_help_panel=_CUT),
    ] = 8,
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            min=1,
            metavar="N",
            help="Epochs of training on.",
            show_default="as many as the run had",
            rich_help_panel=_CUT,
        ),
    ] = None,
    train: Annotated[
        bool,
        typer.Option("--train/--no-train", help="Train what is left, as the run was trained.", rich_help_panel=_CUT),
    ] = True,
    device: options.DeviceOption = None,
    threads: options.ThreadsOption = None,
    runs: options.RunsOption = Path("runs"),
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Cut channels of a run's network until it is small or fast enough, then fine-tune it.

    What is left is a run like any other: its recipe states every width, its teacher and bank are those of the run it
    came from. Channels that hang together go together, along the network's dependency graph.
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
