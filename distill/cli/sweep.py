"""``distill sweep``."""

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
    "distill sweep --recipe mine.yaml --grid optim.name=adam,sgd --grid optim.lr=0.001,0.01 --seeds 3",
    "distill sweep --recipe mine.yaml --trials 50 --search optim.lr=1e-4:1e-1:log",
)

_SEARCH = "Search"


def command(
    *,
    recipe: options.RecipeOption = None,
    changes: options.SetOption = None,
    teacher: options.TeacherOption = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            "--grid",
            metavar="A.B=V,W",
            help="Try each value. Repeatable: all combinations.",
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(
            "--search",
            metavar="A.B=LOW:HIGH[:log]",
            help="Let Optuna choose within a range. Repeatable; needs --trials.",
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option("--trials", min=1, metavar="N", help="How many choices of --search.", rich_help_panel=_SEARCH),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option("--seeds", min=1, metavar="N", help="Train each with N seeds: 0 to N-1.", rich_help_panel=_SEARCH),
    ] = 1,
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage",
            metavar="URL",
            help="Optuna's storage, shared by several machines.",
            show_default="an SQLite file below the runs",
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    device: options.DeviceOption = None,
    threads: options.ThreadsOption = None,
    runs: options.RunsOption = Path("runs"),
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Train one recipe many times: grids, repeated seeds, or a search by Optuna."""
    _check(recipe, grid, search, trials)
    from distill.recipe import load_recipe

    assert recipe is not None
    loaded = load_recipe(recipe, changes or [])
    from distill.pipeline import Options
    from distill.sweep import sweep, sweep_table

    output = Output(json=json, quiet=quiet)
    with ProgressPrinter(quiet=quiet) as printer:
        result = sweep(
            loaded,
            teacher=teacher,
            grid=grid or [],
            search=search or [],
            trials=trials,
            seeds=seeds,
            storage=storage,
            options=Options(runs_dir=runs, device=device, threads=threads, command=options.typed(), on_event=printer),
        )
    output.show(result, lambda width: sweep_table(result, width))


def _check(recipe: str | None, grid: list[str] | None, search: list[str] | None, trials: int | None) -> None:
    if recipe is None:
        raise UsageError("no recipe", hint="distill sweep --recipe R --grid optim.lr=0.01,0.1")
    if grid and search:
        raise UsageError("--grid and --search exclude each other", hint="a grid tries all, a search chooses")
    if bool(search) != bool(trials):
        raise UsageError("--search and --trials go together", hint="--trials 50 --search optim.lr=1e-4:1e-1:log")
