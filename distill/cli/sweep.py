"""``distill sweep``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from distill.cli import options
from distill.cli.output import Output
from distill.cli.progress import ProgressPrinter
from distill.commands import training_verb
from distill.errors import UsageError

__all__ = ["EXAMPLES", "command"]

EXAMPLES = options.examples(
    "distill sweep --recipe mine.yaml --grid optim.name=adam,sgd --grid optim.lr=0.001,0.01 --seeds 3",
    "distill sweep --recipe mine.yaml --trials 50 --search optim.lr=1e-4:1e-1:log --search train.batch_size=32:256",
    "distill sweep --resume sweeps/mine",
)

_SEARCH, _FOLDER = "What to vary", "Run folders"

_Grid = Annotated[
    list[str] | None,
    typer.Option(
        "--grid",
        metavar="A.B=V,W",
        help="Values to try. Repeatable: all combinations.",
        rich_help_panel=_SEARCH,
    ),
]
_Seeds = Annotated[
    int,
    typer.Option(
        "--seeds",
        min=1,
        metavar="N",
        help="Train each with N seeds, counting up from the recipe's; shows mean and spread.",
        rich_help_panel=_SEARCH,
    ),
]
_Search = Annotated[
    list[str] | None,
    typer.Option(
        "--search",
        metavar="A.B=LOW:HIGH",
        help="Let Optuna choose: LOW:HIGH, LOW:HIGH:log, or [V, W]. Repeatable; needs --trials.",
        rich_help_panel=_SEARCH,
    ),
]
_Trials = Annotated[
    int | None,
    typer.Option(
        "--trials",
        min=1,
        metavar="N",
        help="Number of --search trials, over all machines.",
        rich_help_panel=_SEARCH,
    ),
]
_Prune = Annotated[
    bool,
    typer.Option(
        "--prune/--no-prune",
        help="End search trials that are worse than the median of others at the same epoch.",
        rich_help_panel=_SEARCH,
    ),
]
_Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="URL",
        help="The study that machines share: journal:FILE or an Optuna database URL. It has the sweep's name.",
        show_default="sqlite, sweeps/NAME/study.db",
        rich_help_panel=_SEARCH,
    ),
]
_Name = Annotated[
    str | None,
    typer.Option(
        "--name",
        metavar="NAME",
        help="Name of the sweep's folder: sweeps/NAME, beside the folder of runs.",
        show_default="the recipe's",
        rich_help_panel=_FOLDER,
    ),
]
_Resume = Annotated[
    str | None,
    typer.Option(
        "--resume",
        metavar="SWEEP",
        help="Continue a stopped sweep (folder or name). Running the same command again does so too.",
        rich_help_panel=_FOLDER,
    ),
]


def command(
    *,
    recipe: options.RecipeOption = None,
    changes: options.SetOption = None,
    teacher: options.TeachersOption = None,
    grid: _Grid = None,
    seeds: _Seeds = 1,
    search: _Search = None,
    trials: _Trials = None,
    prune: _Prune = True,
    storage: _Storage = None,
    device: options.DeviceOption = None,
    threads: options.ThreadsOption = None,
    runs: options.RunsOption = Path("runs"),
    name: _Name = None,
    resume: _Resume = None,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Train one recipe many times: grids, repeated seeds, or an Optuna search.

    Validation accuracy decides, never the test set. Each trial is a run in sweeps/NAME/trials, not found by run name;
    finished ones are not repeated, and the best becomes the recipe sweeps/NAME/best.yaml.
    """
    given = {"--set": changes, "--teacher": teacher, "--grid": grid, "--search": search, "--name": name}
    _check(recipe, resume, given | {"--seeds": seeds != 1, "--no-prune": not prune})
    from distill.pipeline import Options
    from distill.report.sweeps import sweep_table
    from distill.sweeps import resume_sweep, sweep

    output = Output(json=json, quiet=quiet)
    with ProgressPrinter(quiet=quiet) as printer:
        machine = Options(runs_dir=runs, device=device, threads=threads, command=options.typed(), on_event=printer)
        if resume is not None:
            report = resume_sweep(resume, trials=trials, storage=storage, options=machine)
        else:
            assert recipe is not None, "checked before"
            report = sweep(
                recipe,
                overrides=changes or [],
                teacher=teacher or None,
                grid=grid or [],
                search=search or [],
                trials=trials,
                seeds=seeds,
                storage=storage,
                prune=prune,
                name=name,
                options=machine,
            )
    output.show(report, lambda width: sweep_table(report, width))
    if report.best is not None:
        from distill.recipe import load_recipe

        verb = training_verb(load_recipe(report.best.recipe).role)
        output.note(f"next: distill {verb} --recipe {shlex.quote(report.best.recipe)}")


def _check(recipe: str | None, resume: str | None, given: dict[str, object]) -> None:
    if resume is None:
        if recipe is None:
            raise UsageError("no recipe", hint="distill sweep --recipe R --grid optim.lr=0.01,0.1")
        return
    extra = [name for name, value in ({"--recipe": recipe} | given).items() if value]
    if extra:
        raise UsageError(
            f"--resume {resume} follows the sweep's own recipe and takes no {', '.join(extra)}",
            hint="to widen a sweep, repeat its command with more values, without --resume",
        )
