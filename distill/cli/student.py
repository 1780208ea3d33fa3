"""``distill student``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distill.cli import completion, options
from distill.cli.training import Request, train, train_chain

if TYPE_CHECKING:
    from distill.pipeline import Options, RunResult
    from distill.recipe import Recipe

__all__ = ["EXAMPLES", "command"]

EXAMPLES = options.examples(
    "distill student --recipe r18_small --teacher resnet152_cifar10",
    "distill student --recipe r18_small --teacher resnet152_cifar10/001 --teacher resnet152_cifar10/002",
    "distill student --recipe mine.yaml --set objective.temperature=2 --seed 1",
    "distill student --recipe r18_small --seeds 3",
    "distill student --recipe r18_small --generations 3",
    "distill student --resume r18_small/003",
)


def command(
    *,
    recipe: options.RecipeOption = None,
    changes: options.SetOption = None,
    seed: options.SeedOption = None,
    seeds: options.SeedsOption = None,
    teacher: options.TeachersOption = None,
    device: options.DeviceOption = None,
    devices: options.DevicesOption = 1,
    threads: options.ThreadsOption = None,
    runs: options.RunsOption = Path("runs"),
    resume: options.ResumeOption = None,
    rerun: options.RerunOption = None,
    init_from: options.InitFromOption = None,
    generations: Annotated[
        int,
        typer.Option(
            "--generations",
            min=1,
            max=100,
            metavar="N",
            help="Train N students in sequence, each the next one's teacher. Run the same command again to "
            "continue an interrupted chain.",
            rich_help_panel=options.RECIPE_PANEL,
        ),
    ] = 1,
    then: Annotated[
        list[str] | None,
        typer.Option(
            "--then",
            metavar="RECIPE",
            help="Another student, taught by the previous one (a teacher assistant). Repeatable.",
            show_default=False,
            rich_help_panel=options.RECIPE_PANEL,
            autocompletion=completion.complete_recipes,
        ),
    ] = None,
    track: options.TrackOption = None,
    dry_run: options.DryRunOption = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Train a student with a teacher, or a baseline on labels only.

    The recipe defines the network, the losses and the teacher; --teacher uses another run, or several, instead.
    The run is written to RUNS/NAME/NNN.
    """
    changed = options.overrides(changes, seed)
    request = Request(
        recipe,
        changed,
        runs,
        device,
        devices,
        threads,
        resume,
        rerun,
        init_from,
        dry_run,
        json=json,
        quiet=quiet,
        seeds=seeds,
        teachers=tuple(teacher or ()),
        track=tuple(track or ()),
    )
    if generations > 1 or then:
        train_chain(request, then or [], generations)
    else:
        train(request, _start, roles=("student", "baseline"))


def _start(recipe: Recipe, request: Request, options: Options) -> RunResult:
    from distill.pipeline import train_student

    return train_student(recipe, teacher=request.teachers, options=options)
