"""``distill similarity``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from distill.cli import completion, options
from distill.cli.output import Output
from distill.cli.progress import ProgressPrinter

__all__ = ["EXAMPLES", "command"]

EXAMPLES = options.examples(
    "distill similarity quickstart_student",
    "distill similarity quickstart_scratch quickstart_teacher --figure scratch.png",
    "distill similarity quickstart_student --split val --json",
)

_IMAGES = 2000


def command(
    *,
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A run folder, or a name (its latest finished run).",
            show_default=False,
            autocompletion=completion.complete_runs,
        ),
    ],
    other: Annotated[
        str | None,
        typer.Argument(
            metavar="OTHER",
            help="The run that it is held against.",
            show_default="its teacher",
            autocompletion=completion.complete_runs,
        ),
    ] = None,
    split: Annotated[
        Literal["test", "val"],
        typer.Option("--split", help="The test set, or the validation images, which select checkpoints."),
    ] = "test",
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
    """Compare a student with its teacher inside: CKA of their stages, agreement, class correlations."""
    if figure is not None:
        from distill.report.figure import check_name

        check_name(figure, overwrite=overwrite)
    from distill.pipeline import Options
    from distill.pipeline.similarity import similarity
    from distill.report.similarity import similarity_table

    output = Output(json=json, quiet=quiet)
    with ProgressPrinter(quiet=quiet) as printer:
        found = similarity(
            run,
            other,
            split=split,
            images=images,
            figure=figure,
            options=Options(runs_dir=runs, device=device, threads=threads, on_event=printer),
        )
    output.show(found, lambda width: similarity_table(found, width))
    if found.figure is not None:
        output.note(f"wrote {found.figure}")
