"""``distill teacher-finetune``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from distill.cli import options
from distill.cli.training import Request, train

if TYPE_CHECKING:
    from distill.pipeline import Options, RunResult
    from distill.recipe import Recipe

__all__ = ["EXAMPLES", "command"]

DEFAULT_RECIPE = "resnet152_cifar10"
EXAMPLES = options.examples(
    "distill teacher-finetune",
    "distill teacher-finetune --recipe resnet152_cifar10 --set train.epochs=10 --dry-run",
    "distill teacher-finetune --resume resnet152_cifar10",
)


def command(
    *,
    recipe: options.RecipeOption = None,
    changes: options.SetOption = None,
    seed: options.SeedOption = None,
    seeds: options.SeedsOption = None,
    device: options.DeviceOption = None,
    devices: options.DevicesOption = 1,
    threads: options.ThreadsOption = None,
    runs: options.RunsOption = Path("runs"),
    resume: options.ResumeOption = None,
    rerun: options.RerunOption = None,
    init_from: options.InitFromOption = None,
    track: options.TrackOption = None,
    dry_run: options.DryRunOption = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Fine-tune a teacher on your data.

    The default recipe is resnet152_cifar10: timm's ResNet-152 with ImageNet weights, adapted to CIFAR-10.
    The run is written to RUNS/NAME/NNN; students learn from its best checkpoint.
    """
    changed = options.overrides(changes, seed)
    named = recipe or (None if resume or rerun else DEFAULT_RECIPE)
    request = Request(
        named,
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
        track=tuple(track or ()),
    )
    train(request, _start, roles=("teacher",))


def _start(recipe: Recipe, _request: Request, options: Options) -> RunResult:
    from distill.pipeline import finetune_teacher

    return finetune_teacher(recipe, options=options)
