"""``distill card``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distill.cli import completion, options
from distill.cli.output import Output
from distill.cli.progress import ProgressPrinter

__all__ = ["EXAMPLES", "command"]

EXAMPLES = options.examples(
    "distill card r18_small --out README.md",
    "distill card runs/r18_small/003/exports/r18_small_int8.onnx --no-latency",
)


def command(
    *,
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A name (all its seeds, the latest run's weights), a run folder, or an exported file.",
            show_default=False,
            autocompletion=completion.complete_runs,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="Write to this file (.md), not to stdout.", show_default=False
        ),
    ] = None,
    latency: Annotated[bool, typer.Option("--latency/--no-latency", help="Time the model.")] = True,
    overwrite: options.ReplaceOption = False,
    device: options.DeviceOption = None,
    threads: options.TimingThreadsOption = 1,
    runs: options.RunsOption = Path("runs"),
    quiet: options.QuietOption = False,
) -> None:
    """Write a model card, Markdown with Hugging Face's metadata block, from measured facts only.

    Data, distillation, results with spread and n, latency and hardware, limits, how to load it. What was not measured
    or stated is marked as such.
    """
    from distill.pipeline import Options
    from distill.pipeline.card import model_card, write_card

    output = Output(quiet=quiet)
    with ProgressPrinter(quiet=quiet) as printer:
        settings = Options(runs_dir=runs, device=device, timing_threads=threads, on_event=printer)
        if out is None:
            text = model_card(run, latency=latency, options=settings)
        else:
            text = str(write_card(run, out=out, latency=latency, overwrite=overwrite, options=settings))
    output.text(text)
