"""``distill doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distill.cli import options
from distill.cli.output import Output
from distill.errors import MissingError, RunError, UsageError

__all__ = ["EXAMPLES", "command"]

EXAMPLES = options.examples(
    "distill doctor",
    "distill doctor --data /datasets --json",
    "distill doctor --recipe r18_small --threads 1",
)


def command(
    *,
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Folder to search for data sets.")] = Path("data"),
    recipe: options.RecipeOption = None,
    changes: options.SetOption = None,
    threads: options.ThreadsOption = None,
    runs: options.RunsOption = Path("runs"),
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Show what this machine has: versions, devices, data, weights, optional packages.

    Exits with 4 only if distill itself cannot work. With --recipe: test each layer of the recipe's network on this CPU,
    forward and backward, against float64, with the run's settings and with others; exits with 1 if anything the run
    would use is wrong, crashes or hangs, and says what to set.
    """
    if recipe is not None:
        _kernels(recipe, changes or [], threads, Output(json=json, quiet=quiet))
        return
    if changes or threads is not None:
        raise UsageError("--set and --threads are for a recipe's network", hint="name one: distill doctor --recipe R")
    from distill.report.doctor import examine
    from distill.report.tables import doctor_table

    checks = examine(data_root=data, runs_dir=runs)
    Output(json=json).show(checks, lambda _: doctor_table(checks))
    broken = [check.name for check in checks if check.status == "broken"]
    if broken:
        raise MissingError(
            f"distill cannot work without {', '.join(broken)}", hint="install distill again, in this environment"
        )


def _kernels(recipe: str, changes: list[str], threads: int | None, output: Output) -> None:
    from distill.cli.progress import ProgressPrinter
    from distill.pipeline import Options, check_kernels
    from distill.recipe import load_recipe
    from distill.report.kernel_table import kernels_table

    loaded = load_recipe(recipe, changes)
    with ProgressPrinter(quiet=output.quiet) as progress:
        check = check_kernels(loaded, options=Options(threads=threads, on_event=progress))
    output.show(check, lambda width: kernels_table(check, width))
    wrong = sum(row.outcome != "right" for row in check.layers)
    if wrong:
        are, them = ("is", "it") if wrong == 1 else ("are", "them")
        raise RunError(
            f"{wrong} of {len(check.layers)} layers of {check.recipe} {are} not right as its run computes {them} here",
            hint=check.set
            or "nothing that was tried makes all of them right: train on another machine or with another torch",
        )
