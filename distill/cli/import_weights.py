"""``distill import``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distill.cli import options
from distill.cli.output import Output
from distill.cli.progress import ProgressPrinter
from distill.errors import UsageError

__all__ = ["EXAMPLES", "command"]

EXAMPLES = options.examples(
    "distill import resnet56_vanilla.pth --recipe resnet56_cifar100",
    "distill import model.safetensors --recipe photos_teacher.yaml --set name=theirs --entry ema",
)


def command(
    *,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A checkpoint: .safetensors, or what torch.save wrote of a state_dict() or of a dictionary that has "
            "one. Nothing in it is executed.",
            show_default=False,
        ),
    ],
    recipe: options.RecipeOption = None,
    changes: options.SetOption = None,
    entry: Annotated[
        str | None,
        typer.Option(
            "--entry",
            metavar="KEY",
            help="Which of the checkpoint's dictionaries, as model or ema.state_dict.",
            show_default="the only one that fits",
        ),
    ] = None,
    device: options.DeviceOption = None,
    threads: options.ThreadsOption = None,
    runs: options.RunsOption = Path("runs"),
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Make a finished run of a network that was trained elsewhere.

    The recipe specifies the network, its normalisation and its data. Tensors are matched by name, or in order if they
    have other names. The run can teach, and be compared, evaluated, exported and pruned like any other.
    """
    if recipe is None:
        raise UsageError("no recipe", hint="it says which network this is: distill import FILE --recipe R")
    from distill.pipeline import Options, import_weights
    from distill.recipe import load_recipe
    from distill.report.deployment import imported_table

    output = Output(json=json, quiet=quiet)
    with ProgressPrinter(quiet=quiet) as printer:
        settings = Options(runs_dir=runs, device=device, threads=threads, command=options.typed(), on_event=printer)
        made = import_weights(file, load_recipe(recipe, changes or []), entry=entry, options=settings)
    output.show(made, lambda _: imported_table(made))
