"""``distill kit``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from distill.cli import options
from distill.cli.output import Output
from distill.cli.progress import ProgressPrinter

__all__ = ["EXAMPLES", "command"]

EXAMPLES = options.examples(
    "distill kit exports/r18_small_int8.onnx kit",
    "distill kit exports/r18_small_int8.onnx kit --images 1000",
)


def command(
    *,
    file: options.FileArgument,
    out: Annotated[
        Path,
        typer.Argument(metavar="OUT", help="The folder to create.", show_default=False),
    ],
    images: Annotated[
        int,
        typer.Option(
            "--images",
            min=1,
            metavar="N",
            help="Number of test images to include, evenly spaced.",
            rich_help_panel="What goes along",
        ),
    ] = 500,
    overwrite: options.OverwriteOption = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Pack an exported file, test images and a benchmark script for a machine without PyTorch.

    The script needs Python 3.8, numpy and onnxruntime. It prints accuracy, latency and the machine, and writes
    device.json; "distill compare --measured device.json" adds that as a row.
    """
    from distill.certificate import write_kit
    from distill.pipeline import Options
    from distill.report.certificate import kit_table

    output = Output(json=json, quiet=quiet)
    with ProgressPrinter(quiet=quiet) as printer:
        settings = Options(command=options.typed(), on_event=printer)
        made = write_kit(file, out, images=images, overwrite=overwrite, options=settings)
    output.show(made, lambda _: kit_table(str(made.folder), made.images, made.size_mb))
    output.note(f"there: python {shlex.quote(f'{made.folder.name}/measure.py')}")
