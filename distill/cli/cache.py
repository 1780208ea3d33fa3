"""``distill cache``: a teacher's stored answers, and decoded images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distill.cli import completion, options
from distill.cli.output import Output
from distill.cli.progress import ProgressPrinter
from distill.errors import RunError, UsageError
from distill.text import counted

if TYPE_CHECKING:
    from distill.results.rows import BankRow

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    help="Store a teacher's logits once for any number of students; list decoded images.",
)

_Banks = Annotated[
    list[str] | None,
    typer.Argument(metavar="BANKS", help="Bank folders or teacher runs.", show_default="all under the runs folder"),
]


@app.command(
    "build",
    epilog=options.examples(
        "distill cache build --recipe r18_small",
        "distill cache build --recipe r18_small --teacher resnet152_cifar10 --views 30 --out bank",
        "distill cache build --recipe r18_small -t resnet152_cifar10/001 -t resnet152_cifar10/002",
    ),
)
def build(
    *,
    recipe: options.RecipeOption = None,
    changes: options.SetOption = None,
    teacher: options.EachTeacherOption = None,
    views: Annotated[
        int | None,
        typer.Option("--views", min=1, metavar="N", help="Number of views.", show_default="as many as the recipe uses"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="The bank's folder, for one teacher only.", show_default="in the teacher's run"
        ),
    ] = None,
    device: options.DeviceOption = None,
    devices: options.DevicesOption = 1,
    threads: options.ThreadsOption = None,
    runs: options.RunsOption = Path("runs"),
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Run a teacher on the views that a student's recipe uses, and store its logits.

    An interrupted build continues where it stopped; more views extend it. A bank may be built on a GPU and used
    elsewhere. Each of several teachers gets its own bank; --json is then a list.
    """
    from distill.recipe import load_recipe

    if recipe is None:
        raise UsageError("no recipe", hint="name the student's: distill cache build --recipe r18_small")
    loaded = load_recipe(recipe, changes or [])
    from distill.pipeline import Options, build_banks
    from distill.report.cache import banks_table

    output = Output(json=json, quiet=quiet)
    with ProgressPrinter(quiet=quiet) as printer:
        settings = Options(runs_dir=runs, device=device, devices=devices, threads=threads, on_event=printer)
        banks = build_banks(loaded, teacher=teacher, views=views, path=out, options=settings)
    output.show(banks if len(banks) > 1 else banks[0], lambda width: banks_table(banks, width))
    if len(banks) == 1:
        output.note(f"the bank is {banks[0].path}; it travels: --set teacher='{{bank: PATH}}'")
    else:
        named = ", ".join(f"{{path: {bank.path}}}" for bank in banks)
        output.note(f"a student reads them by --set teacher='{{banks: [{named}]}}'; they travel")


@app.command("info", epilog=options.examples("distill cache info", "distill cache info resnet152_cifar10 --json"))
def info(*, banks: _Banks = None, runs: options.RunsOption = Path("runs"), json: options.JsonOption = False) -> None:
    """Show banks: teacher and its test accuracy, augmentation, views, size."""
    from distill.pipeline import list_banks
    from distill.report.cache import banks_table

    output = Output(json=json)
    rows = list_banks(banks or [], runs_dir=runs)
    if rows or json:
        output.show(rows, lambda width: banks_table(rows, width))
    else:
        output.note(f"no bank below {runs}")


@app.command(
    "verify",
    epilog=options.examples("distill cache verify", "distill cache verify bank --teacher resnet152_cifar10 --repair"),
)
def verify(
    *,
    banks: _Banks = None,
    images: Annotated[
        int, typer.Option("--images", min=0, metavar="N", help="Recompute N random stored answers with the teacher.")
    ] = 64,
    teacher: Annotated[
        str | None,
        typer.Option(
            "--teacher",
            "-t",
            metavar="RUN",
            help="The teacher's run, for a bank moved out of it.",
            show_default="the run that contains the bank",
            autocompletion=completion.complete_runs,
        ),
    ] = None,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Remove what is damaged and all later views; cache build recreates them."),
    ] = False,
    device: options.DeviceOption = None,
    threads: options.ThreadsOption = None,
    runs: options.RunsOption = Path("runs"),
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Check banks: every file's checksum, and some logits against the teacher. Exits with 1 if one is damaged.

    The teacher runs in PyTorch in full precision: on a CPU like the one that built the bank, the largest difference
    from the stored logits is 0, or about a rounding error if the bank was built otherwise (ONNX Runtime, bf16).
    """
    from distill.pipeline import Options, verify_banks
    from distill.report.cache import banks_table

    output = Output(json=json, quiet=quiet)
    with ProgressPrinter(quiet=quiet) as printer:
        settings = Options(runs_dir=runs, device=device, threads=threads, on_event=printer)
        rows = verify_banks(banks or [], images=images, teacher=teacher, repair=repair, options=settings)
    if rows or json:
        output.show(rows, lambda width: banks_table(rows, width))
    else:
        output.note(f"no bank below {runs}")
    _raise_damage(rows, repair=repair)


def _raise_damage(rows: Sequence[BankRow], *, repair: bool) -> None:
    damaged = [row for row in rows if row.status.startswith("damaged")]
    if damaged:
        lines = [f"{row.path} is {row.status}" for row in damaged]
        hint = f"distill cache verify {damaged[0].path} --repair, then build it again"
        if repair or not damaged[0].damaged:
            hint = f"distill cache clear {damaged[0].path}, then build it again"
        raise RunError("\n".join(lines), hint=hint)


@app.command(
    "clear", epilog=options.examples("distill cache clear bank", "distill cache clear resnet152_cifar10 --yes")
)
def clear(
    *,
    banks: _Banks = None,
    runs: options.RunsOption = Path("runs"),
    yes: options.YesOption = False,
) -> None:
    """Delete banks, after listing them; files that distill did not make stay."""
    from distill.pipeline import clear_banks, list_banks

    output = Output()
    rows = list_banks(banks or [], runs_dir=runs)
    if not rows:
        output.note(f"no bank below {runs}")
    elif not yes:
        _confirm(rows, output)
    for gone in clear_banks([row.path for row in rows], runs_dir=runs) if rows else ():
        output.note(f"deleted {gone.path}, {gone.size_bytes / 1e6:,.1f} MB")
        if gone.left:
            output.warning(f"not distill's, and still there: {', '.join(map(str, gone.left))}")


@app.command("images", epilog=options.examples("distill cache images", "distill cache images --clear"))
def images(
    *,
    clear: Annotated[bool, typer.Option("--clear", help="Delete them; runs decode again what they need.")] = False,
    yes: options.YesOption = False,
    json: options.JsonOption = False,
) -> None:
    """Show the decoded images stored on this machine, in $DISTILL_CACHE, and their size."""
    from distill.data.array_cache import arrays_folder
    from distill.data.decoded_sets import list_decoded, remove_decoded
    from distill.report.cache import decoded_table

    output = Output(json=json)
    found = list_decoded()
    if not found and not json:
        output.note(f"no decoded images in {arrays_folder()}")
        return
    output.show(found, lambda width: decoded_table(found, width))
    if clear and found:
        if not yes:
            output.confirm_deletion(f"{counted(len(found), 'set')} of decoded images", [each.folder for each in found])
        remove_decoded(found)
        output.note(f"deleted {counted(len(found), 'set')}, {sum(each.size_mb for each in found):,.1f} MB")


def _confirm(rows: Sequence[BankRow], output: Output) -> None:
    for row in rows:
        output.note(f"would delete {row.path}, {row.size_mb:,.1f} MB")
    output.confirm_deletion(counted(len(rows), "bank"), [row.path for row in rows])
