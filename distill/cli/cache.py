"""``distill cache``: a teacher's stored answers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from distill.cli import options
from distill.cli.output import Output
from distill.cli.progress import ProgressPrinter
from distill.errors import RunError, UsageError

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Store a teacher's logits once, for any number of students.")

_Banks = Annotated[
    list[str] | None,
    typer.Argument(metavar="[BANKS]...", help="Bank folders, or runs of teachers.", show_default="all below the runs"),
]


@app.command(
    "build",
    epilog=options.examples(
        "distill cache build --recipe r18_small",
        "distill cache build --recipe r18_small --teacher resnet152_cifar10 --views 30 --out bank",
    ),
)
def build(
    *,
    recipe: options.RecipeOption = None,
    changes: options.SetOption = None,
    teacher: options.TeacherOption = None,
    views: Annotated[
        int | None,
        typer.Option("--views", min=1, metavar="N", help="How many views.", show_default="as many as the recipe shows"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="The bank's folder.", show_default="in the teacher's run"),
    ] = None,
    device: options.DeviceOption = None,
    threads: options.ThreadsOption = None,
    runs: options.RunsOption = Path("runs"),
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Ask a teacher for its logits on the views that a student's recipe shows, and store them.

    An interrupted build goes on where it stopped; more views extend it. A bank may be made on a GPU and used elsewhere.
    """
    from distill.recipe import load_recipe

    if recipe is None:
        raise UsageError("no recipe", hint="name the student's: distill cache build --recipe r18_small")
    loaded = load_recipe(recipe, changes or [])
    from distill.pipeline import Options, build_cache
    from distill.report.tables import banks_table

    output = Output(json=json, quiet=quiet)
    with ProgressPrinter(quiet=quiet) as printer:
        asked = Options(runs_dir=runs, device=device, threads=threads, on_event=printer)
        bank = build_cache(loaded, teacher=teacher, views=views, path=out, options=asked)
    output.show(bank, lambda width: banks_table([bank], width))
    output.note(f"the bank is {bank.path}")


@app.command("info", epilog=options.examples("distill cache info", "distill cache info resnet152_cifar10 --json"))
def info(*, banks: _Banks = None, runs: options.RunsOption = Path("runs"), json: options.JsonOption = False) -> None:
    """Show banks: teacher, data, views, size."""
    from distill.pipeline import list_caches
    from distill.report.tables import banks_table

    rows = list_caches(banks or [], runs_dir=runs)
    Output(json=json).show(rows, lambda width: banks_table(rows, width))


@app.command("verify", epilog=options.examples("distill cache verify", "distill cache verify bank"))
def verify(*, banks: _Banks = None, runs: options.RunsOption = Path("runs"), json: options.JsonOption = False) -> None:
    """Read banks whole and compare every checksum; exits with 1 if one is damaged."""
    from distill.pipeline import list_caches
    from distill.report.tables import banks_table

    rows = list_caches(banks or [], runs_dir=runs, verify=True)
    Output(json=json).show(rows, lambda width: banks_table(rows, width))
    damaged = [row.path for row in rows if row.status != "ok"]
    if damaged:
        raise RunError(f"damaged: {', '.join(damaged)}", hint=f"distill cache clear {damaged[0]}, then build it again")


@app.command(
    "clear", epilog=options.examples("distill cache clear bank", "distill cache clear resnet152_cifar10 --yes")
)
def clear(
    *,
    banks: Annotated[
        list[str], typer.Argument(metavar="BANKS...", help="Bank folders, or runs of teachers.", show_default=False)
    ],
    runs: options.RunsOption = Path("runs"),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete banks."""
    from distill.pipeline import clear_caches, list_caches

    output = Output()
    rows = list_caches(banks, runs_dir=runs)
    if rows and not yes:
        _confirm([row.path for row in rows])
    clear_caches(banks, runs_dir=runs)
    for row in rows:
        output.note(f"deleted {row.path}, {row.size_mb:,.1f} MB")


def _confirm(paths: list[str]) -> None:
    if not sys.stdin.isatty():
        raise UsageError(f"{len(paths)} banks would be deleted: {', '.join(paths)}", hint="say so with --yes")
    if not typer.confirm(f"Delete {', '.join(paths)}?", err=True):
        raise typer.Exit
