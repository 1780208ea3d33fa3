"""``distill certify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distill.cli import completion, options
from distill.cli.output import Output
from distill.cli.progress import ProgressPrinter

__all__ = ["EXAMPLES", "command"]

EXAMPLES = options.examples(
    "distill certify exports/r18_small_int8.onnx",
    "distill certify exports/r18_small_int8.onnx --max-drop 0.01 --budget 'latency_b1_ms <= 2' --budget 'size_mb <= 1'",
    "distill certify exports/r18_small_int8.onnx --against resnet152_cifar10 --max-drop 0.02 --prove",
)

_PROMISES, _ACCURACY = "Promises", "Accuracy"


def command(
    *,
    file: options.FileArgument,
    run: Annotated[
        str | None,
        typer.Option(
            "--run",
            metavar="RUN",
            help="The file's source run.",
            show_default="the newest with the same weights",
            rich_help_panel="Run folders",
            autocompletion=completion.complete_runs,
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="RUN",
            help="Reference run for --max-drop, for example the teacher.",
            show_default="the source run, before pruning and rounding",
            rich_help_panel=_ACCURACY,
            autocompletion=completion.complete_runs,
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            "--max-drop",
            min=0.0,
            metavar="D",
            help="Largest allowed drop in top-1, a fraction: 0.003 is 0.3 points.",
            show_default="no promise",
            rich_help_panel=_ACCURACY,
        ),
    ] = None,
    prove: options.ProveOption = False,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            "--budget",
            metavar="EXPR",
            help="Upper limit to promise: params, gmacs, size_mb, latency_b1_ms or latency_b32_ms, then <= and a "
            "number. Repeatable.",
            rich_help_panel=_PROMISES,
        ),
    ] = None,
    seconds: options.TimingSecondsOption = 8.0,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="The certificate to write.",
            show_default="<file>.certificate.json beside the file",
            rich_help_panel="Output",
        ),
    ] = None,
    overwrite: options.OverwriteOption = False,
    device: options.DeviceOption = None,
    threads: options.TimingThreadsOption = 1,
    runs: options.RunsOption = Path("runs"),
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Measure an exported file, and write a certificate beside it.

    The certificate contains the file's sha256, the machine, latency with the noise of the same minutes, accuracy and
    its drop with intervals, which images each step read and whether they are disjoint, seeds and commands. Exits with
    3, and writes none, if a promise does not hold. Validation images decide about --max-drop; the test images must
    not refute it.
    """
    from distill.certificate import certify
    from distill.certificate.promises import budgets_of
    from distill.pipeline import Options
    from distill.report.certificate import certificate_table

    budgets = budgets_of(budget or [])  # a typing mistake is told before minutes of measuring
    output = Output(json=json, quiet=quiet)
    with ProgressPrinter(quiet=quiet) as printer:
        settings = Options(
            runs_dir=runs, device=device, timing_threads=threads, command=options.typed(), on_event=printer
        )
        made = certify(
            file,
            run=run,
            against=against,
            max_drop=max_drop,
            prove=prove,
            budgets=budgets,
            seconds=seconds,
            out=out,
            overwrite=overwrite,
            options=settings,
        )
    output.show(made, lambda width: certificate_table(str(made.path), made.certificate, width))
