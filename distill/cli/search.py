"""``distill search``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from distill.cli import completion, options
from distill.cli.output import Output
from distill.cli.progress import ProgressPrinter
from distill.errors import GateMissedError, UsageError

__all__ = ["EXAMPLES", "command"]

EXAMPLES = options.examples(
    "distill search --recipe mine.yaml --budget 'latency_b1_ms <= 2' --budget 'size_mb <= 1' --max-drop 0.01",
    "distill search --recipe mine.yaml --budget 'latency_b1_ms <= 1' --runtime onnxruntime-int8 --hours 8",
    "distill search --recipe mine.yaml --budget 'latency_b1_ms <= 20' --measure 'ssh board ./time.sh {file}'",
)

_BUDGET, _EFFORT = "Budget", "Effort"


def command(
    *,
    recipe: options.RecipeOption = None,
    changes: options.SetOption = None,
    teacher: options.TeachersOption = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            "--budget",
            metavar="EXPR",
            help="Upper limit: params, gmacs, size_mb, latency_b1_ms or latency_b32_ms, then <= and a number. "
            "Repeatable.",
            rich_help_panel=_BUDGET,
        ),
    ] = None,
    runtime: Annotated[
        Literal["torch", "onnxruntime", "onnxruntime-int8"],
        typer.Option("--runtime", help="Runtime of the file, for latency and size.", rich_help_panel=_BUDGET),
    ] = "onnxruntime",
    threads: options.TimingThreadsOption = 1,
    measure: Annotated[
        str | None,
        typer.Option(
            "--measure",
            metavar="CMD",
            help="Time files elsewhere: a command that takes an ONNX file at {file} and prints JSON, "
            'such as {"latency_b1_ms": 1.9}.',
            show_default="this machine",
            rich_help_panel=_BUDGET,
        ),
    ] = None,
    max_drop: options.MaxDropOption = 0.01,
    prove: options.ProveOption = False,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="RUN",
            help="Reference run for --max-drop.",
            show_default="the teacher",
            rich_help_panel="Accuracy",
            autocompletion=completion.complete_runs,
        ),
    ] = None,
    evaluations: Annotated[
        int,
        typer.Option(
            "--evaluations",
            min=4,
            metavar="N",
            help="Shapes to train, most of them for a ninth of the schedule.",
            rich_help_panel=_EFFORT,
        ),
    ] = 18,
    hours: Annotated[
        float | None,
        typer.Option(
            "--hours",
            metavar="H",
            help="Train fewer shapes if all would take longer, judging by the first epochs.",
            rich_help_panel=_EFFORT,
        ),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option("--seeds", min=1, metavar="N", help="Train each finalist with N seeds.", rich_help_panel=_EFFORT),
    ] = 3,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            metavar="NAME",
            help="Name of the search's folder: searches/NAME beside the runs folder.",
            show_default="the recipe's",
            rich_help_panel="Run folders",
        ),
    ] = None,
    device: options.DeviceOption = None,
    runs: options.RunsOption = Path("runs"),
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Find the most accurate network shape within a budget, and export it.

    Candidates over budget are never trained: each is counted first and, for a budget over size or latency, exported
    untrained and timed. Candidates learn from the recipe's own bank. Uniform width at the same cost and random search
    with the same epochs are trained as baselines. Run the same command again to continue a stopped search. Exits with
    3 if nothing fits, the best that fits loses more than --max-drop on validation images, or its file is over budget
    and cannot be pruned.
    """
    if recipe is None:
        raise UsageError("no recipe", hint="distill search --recipe R --budget 'latency_b1_ms <= 2'")
    from distill.pipeline import Options
    from distill.report.search import search_table
    from distill.searches import search

    output = Output(json=json, quiet=quiet)
    with ProgressPrinter(quiet=quiet) as printer:
        settings = Options(runs_dir=runs, device=device, command=options.typed(), on_event=printer)
        report = search(
            recipe,
            budgets=budget or [],
            overrides=changes or [],
            teacher=teacher or None,
            max_drop=max_drop,
            prove=prove,
            against=against,
            runtime=runtime,
            threads=threads,
            measure=measure,
            evaluations=evaluations,
            hours=hours,
            seeds=seeds,
            name=name,
            options=settings,
        )
    output.show(report, lambda width: search_table(report, width))
    if report.missed is not None:
        raise GateMissedError(report.missed, hint=report.hint)
