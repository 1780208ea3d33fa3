"""The options that several commands share, each declared once: name, unit, default, help, panel."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from distill.cli import completion

__all__ = [
    "CUT",
    "RECIPE_PANEL",
    "AllowCodeOption",
    "CalibratedOption",
    "CriterionOption",
    "CsvOption",
    "DeviceOption",
    "DevicesOption",
    "DryRunOption",
    "EachTeacherOption",
    "FileArgument",
    "InitFromOption",
    "JsonOption",
    "MaxDropOption",
    "OverwriteOption",
    "ProveOption",
    "QuietOption",
    "RecipeOption",
    "ReplaceOption",
    "RerunOption",
    "ResumeOption",
    "RunArgument",
    "RunsOption",
    "SeedOption",
    "SeedsOption",
    "SetOption",
    "TeachersOption",
    "ThreadsOption",
    "TimingSecondsOption",
    "TimingThreadsOption",
    "YesOption",
    "elsewhere",
    "examples",
    "hint_of_a_run",
    "meant_setting",
    "overrides",
    "typed",
]

RECIPE_PANEL, CUT = "Recipe", "What to cut"
_RECIPE, _MACHINE, _RUN, _OUTPUT, _ACCURACY = RECIPE_PANEL, "Machine", "Run folders", "Output", "Accuracy"


def examples(*lines: str) -> str:
    """The end of a command's help: lines to copy."""
    return "\n".join(["[bold]Examples[/]", *(f"  {line}" for line in lines)])


def elsewhere(runs: Path) -> str:
    """`` --runs DIR`` for a command that is told, where the folder of runs is not the usual one."""
    return "" if runs.absolute() == Path("runs").absolute() else f" --runs {shlex.quote(str(runs))}"


def typed() -> tuple[str, ...]:
    """What the user typed, for the run's record."""
    return ("distill", *sys.argv[1:])


def meant_setting(option: str) -> str:
    """What to type where an option is a recipe's key, as `` (a recipe's: --set train.epochs=VALUE)``; else empty."""
    from distill.recipe import describe_schema

    wanted = option.lstrip("-").replace("-", "_")
    found = sorted({key.path for key in describe_schema() if key.path.rpartition(".")[2] == wanted}, key=len)
    return f" (a recipe's: --set {found[0]}=VALUE)" if found else ""


def hint_of_a_run(hint: str) -> str:
    """A hint for a command without ``--set``: what it reads has a recipe that says where images are.

    >>> hint_of_a_run("name a folder: --set data.root=PATH; expected train/<class>/<image>")
    'put the images, or a link to them, where the recipe says (data.root); expected train/<class>/<image>'
    >>> hint_of_a_run("repair or remove them; or go on without them: --set data.skip_bad=true")
    'repair or remove them'
    """
    parts = [part for part in hint.split("; ") if not (part.startswith("or ") and "--set " in part)]
    return "; ".join(_of_a_run(part) for part in parts)


def _of_a_run(advice: str) -> str:
    if "--set data.root=" not in advice:
        return advice
    there = "put the images, or a link to them, where the recipe says (data.root)"
    guess = "did you mean --set data.root="
    return f"{advice.removeprefix(guess)} {there}" if advice.startswith(guess) else there


RecipeOption = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        "-r",
        metavar="R",
        help="A recipe file, or the name of a bundled one (distill recipe list).",
        rich_help_panel=_RECIPE,
        autocompletion=completion.complete_recipes,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="A.B=VALUE",
        help="Change one entry of the recipe, as in --set train.epochs=30. Repeatable; checked like the recipe.",
        rich_help_panel=_RECIPE,
        autocompletion=completion.complete_settings,
    ),
]
SeedOption = Annotated[
    int | None,
    typer.Option(
        "--seed",
        min=0,
        metavar="N",
        help="Seed for initial weights, data order and dropout; short for --set train.seed=N.",
        show_default="the recipe's",
        rich_help_panel=_RECIPE,
    ),
]
SplitOption = Annotated[
    Literal["test", "val"],
    typer.Option("--split", help="The test set, or the validation images, which select checkpoints."),
]
SeedsOption = Annotated[
    int | None,
    typer.Option(
        "--seeds",
        min=1,
        metavar="N",
        help="Train with N seeds, a run each, counting up from --seed. The same command continues an interrupted "
        "series; a larger N extends it.",
        show_default="one run, a new one",
        rich_help_panel=_RECIPE,
    ),
]


def _teacher(told: str) -> Any:
    return typer.Option(
        "--teacher",
        "-t",
        metavar="RUN",
        help=f"The teacher: a run (its folder or name) or an ONNX file.{told}",
        show_default="the recipe's",
        rich_help_panel=_RECIPE,
        autocompletion=completion.complete_runs,
    )


EachTeacherOption = Annotated[list[str] | None, _teacher(" Repeatable: each is run.")]
TeachersOption = Annotated[list[str] | None, _teacher(" Repeatable: the logits of several are averaged.")]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="D",
        help="cpu, cuda, cuda:1, mps; auto uses $DISTILL_DEVICE, else the first available of cuda, mps, cpu.",
        autocompletion=completion.complete_devices,
        show_default="auto",
        rich_help_panel=_MACHINE,
    ),
]
DevicesOption = Annotated[
    int,
    typer.Option("--devices", min=1, metavar="N", help="Use N devices, one process each.", rich_help_panel=_MACHINE),
]
RunArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A run folder, or a name: its latest finished run.",
        show_default=False,
        autocompletion=completion.complete_runs,
    ),
]
FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="An exported file (.onnx).", show_default=False)]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
CriterionOption = Annotated[
    Literal["l2", "bn", "taylor"],
    typer.Option(
        "--criterion",
        help="Channel ranking: L2 norm of the weights, batch-norm scale, or first-order Taylor estimate of the loss "
        "increase.",
        rich_help_panel=CUT,
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        metavar="N",
        help="CPU threads per operation. The number affects the last bits of results, so it is recorded.",
        show_default="train.threads for training, else one per core",
        rich_help_panel=_MACHINE,
    ),
]
RunsOption = Annotated[
    Path,
    typer.Option(
        "--runs",
        metavar="DIR",
        envvar="DISTILL_RUNS",
        help="The folder of all runs.",
        rich_help_panel=_RUN,
    ),
]
ResumeOption = Annotated[
    str | None,
    typer.Option(
        "--resume",
        metavar="RUN",
        help="Continue an interrupted run from its last checkpoint, with its own recipe.",
        rich_help_panel=_RUN,
        autocompletion=completion.complete_runs,
    ),
]
RerunOption = Annotated[
    str | None,
    typer.Option(
        "--rerun",
        metavar="RUN",
        help="Repeat a run from the start, with its recipe, seeds and threads, in a new folder.",
        rich_help_panel=_RUN,
        autocompletion=completion.complete_runs,
    ),
]
InitFromOption = Annotated[
    str | None,
    typer.Option(
        "--init-from",
        metavar="RUN",
        help="Initialise a new run with another run's weights, where names and shapes match.",
        rich_help_panel=_RUN,
        autocompletion=completion.complete_runs,
    ),
]
TrackOption = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        metavar="NAME",
        help="Also log to tensorboard, wandb or mlflow. Repeatable; if a tracker fails, a warning is printed and "
        "the run continues.",
        rich_help_panel=_OUTPUT,
    ),
]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Build everything, train three steps, print shapes, parameters, memory and estimated time; create no run.",
        rich_help_panel=_RUN,
    ),
]
AllowCodeOption = Annotated[
    bool,
    typer.Option(
        "--allow-code",
        help="Let recipes run your own Python code: a network, images, a loss.",
        rich_help_panel="Safety",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document instead of a table.", rich_help_panel=_OUTPUT)
]
CsvOption = Annotated[
    str | None,
    typer.Option(
        "--csv", metavar="FILE", help="Also write the table as CSV; - prints it instead.", rich_help_panel=_OUTPUT
    ),
]
CalibratedOption = Annotated[
    bool,
    typer.Option(
        "--calibrated",
        help="Divide logits by the temperature fitted on the run's validation images; it is fitted if none is stored.",
        rich_help_panel=_ACCURACY,
    ),
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace an existing file.", rich_help_panel=_OUTPUT)
]
ReplaceOption = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Also replace a file that distill did not make; its own are always replaced.",
        rich_help_panel=_OUTPUT,
    ),
]
MaxDropOption = Annotated[
    float,
    typer.Option(
        "--max-drop",
        min=0.0,
        metavar="D",
        help="Largest allowed drop in top-1, a fraction: 0.003 is 0.3 points.",
        rich_help_panel=_ACCURACY,
    ),
]
ProveOption = Annotated[
    bool,
    typer.Option(
        "--prove",
        help="Require the upper end of the paired 95% interval, not only the estimate, to stay within --max-drop.",
        rich_help_panel=_ACCURACY,
    ),
]
TimingThreadsOption = Annotated[
    int,
    typer.Option(
        "--threads",
        min=1,
        metavar="N",
        help="CPU threads per operation while timing; 1 compares best between machines.",
        rich_help_panel=_MACHINE,
    ),
]
TimingSecondsOption = Annotated[
    float,
    typer.Option(
        "--seconds",
        min=0.01,
        max=3600.0,
        metavar="S",
        help="How long to time the file; a fast one is timed at most a thousand times.",
        rich_help_panel="What to measure",
    ),
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print no progress or notes to stderr.", rich_help_panel=_OUTPUT)
]


def overrides(changes: list[str] | None, seed: int | None = None) -> list[str]:
    """The overrides of --set, with --seed among them, last."""
    return [*(changes or []), *([] if seed is None else [f"train.seed={seed}"])]
