"""``distill similarity``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distill.cli import completion, options
from distill.cli.output import Output
from distill.cli.progress import ProgressPrinter
from distill.errors import UsageError

__all__ = ["EXAMPLES", "command"]

EXAMPLES = options.examples(
    "distill similarity quickstart_student",
    "distill similarity quickstart_student quickstart_scratch --with quickstart_teacher",
    "distill similarity quickstart_student --figure both.png",
    "distill similarity quickstart_student --split val --json",
)

_IMAGES = 2000


def command(
    *,
    compared: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN",
            help="Run folders, or names (each its latest finished run).",
            show_default=False,
            autocompletion=completion.complete_runs,
        ),
    ],
    other: Annotated[
        str | None,
        typer.Option(
            "--with",
            metavar="RUN",
            help="The run that they are held against.",
            show_default="each one's teacher",
            autocompletion=completion.complete_runs,
        ),
    ] = None,
    split: options.SplitOption = "test",
    images: Annotated[
        int,
        typer.Option(
            "--images", min=4, metavar="N", help="Compare the stages on N images of the split, the same for every pair."
        ),
    ] = _IMAGES,
    figure: Annotated[
        Path | None,
        typer.Option("--figure", metavar="FILE", help="Draw both matrices (.svg, .png or .pdf).", show_default="none"),
    ] = None,
    overwrite: options.ReplaceOption = False,
    device: options.DeviceOption = None,
    threads: options.ThreadsOption = None,
    runs: options.RunsOption = Path("runs"),
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Compare students with their teachers inside: CKA of stages, agreement, class correlations."""
    if figure is not None and len(compared) > 1:
        raise UsageError("--figure is of one run", hint="name one, or leave --figure out")
    if figure is not None:
        from distill.report.figure import check_name

        check_name(figure, overwrite=overwrite)
    from distill.pipeline import Options
    from distill.pipeline.similarity import similarity
    from distill.report.similarity import similarities_table, similarity_table

    output = Output(json=json, quiet=quiet)
    with ProgressPrinter(quiet=quiet) as printer:
        where = Options(runs_dir=runs, device=device, threads=threads, on_event=printer)
        found = [similarity(run, other, split=split, images=images, figure=figure, options=where) for run in compared]
    if len(found) > 1:
        output.show({"runs": found}, lambda width: similarities_table(found, width))
        return
    output.show(found[0], lambda width: similarity_table(found[0], width))
    if found[0].figure is not None:
        output.note(f"wrote {found[0].figure}")
