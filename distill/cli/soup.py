"""``distill soup``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distill.cli import completion, options
from distill.cli.output import Output
from distill.cli.progress import ProgressPrinter

__all__ = ["EXAMPLES", "command"]

EXAMPLES = options.examples(
    "distill soup lite2_cifar10 lite2_cifar10_cutmix",
    "distill soup r18_small/001 r18_small/002 r18_small/003 --greedy --name r18_small_mean",
)


def command(
    *,
    references: Annotated[
        list[str],
        typer.Argument(
            metavar="RUNS",
            help="Two or more: run folders, or names, each its latest finished run.",
            show_default=False,
            autocompletion=completion.complete_runs,
        ),
    ],
    greedy: Annotated[
        bool,
        typer.Option(
            "--greedy",
            help="Begin with the run of the best validation accuracy, and take in each of the others only if the mean "
            "is then no worse on validation images.",
        ),
    ] = False,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            metavar="NAME",
            help="Name of the new run.",
            show_default="the first run's, and _soup",
            rich_help_panel="Run folders",
        ),
    ] = None,
    device: options.DeviceOption = None,
    threads: options.ThreadsOption = None,
    runs: options.RunsOption = Path("runs"),
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Average the weights of several runs into one network: a model soup.

    It costs what one of them costs. Made for fine-tunings of the same network that began with the same weights and
    differ in settings or seeds; of runs that began apart the mean is worth nothing, and the table shows it. The test
    set is not read.
    """
    from distill.pipeline import Options, soup
    from distill.report.deployment import soup_table

    output = Output(json=json, quiet=quiet)
    with ProgressPrinter(quiet=quiet) as printer:
        settings = Options(runs_dir=runs, device=device, threads=threads, command=options.typed(), on_event=printer)
        made = soup(references, greedy=greedy, name=name, options=settings)
    output.show(made, lambda width: soup_table(made, width))
