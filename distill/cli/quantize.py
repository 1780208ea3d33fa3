"""``distill quantize``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distill.cli import options
from distill.cli.output import Output
from distill.cli.progress import ProgressPrinter

__all__ = ["EXAMPLES", "command"]

EXAMPLES = options.examples(
    "distill quantize r18_small",
    "distill quantize r18_small --max-drop 0.005 --prove --threads 4",
)

_ACCURACY = "Accuracy"


def command(
    *,
    run: options.RunArgument,
    max_drop: options.MaxDropOption = 0.003,
    prove: options.ProveOption = False,
    calibration_images: Annotated[
        int,
        typer.Option(
            "--calibration-images",
            min=1,
            metavar="N",
            help="Training images for calibrating activation ranges.",
            rich_help_panel=_ACCURACY,
        ),
    ] = 512,
    train: Annotated[
        bool,
        typer.Option(
            "--train/--no-train",
            help="Run quantisation-aware training if no calibration meets --max-drop.",
            rich_help_panel=_ACCURACY,
        ),
    ] = True,
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            min=1,
            metavar="N",
            help="Epochs of quantisation-aware training.",
            show_default="a tenth of the run's",
            rich_help_panel=_ACCURACY,
        ),
    ] = None,
    device: options.DeviceOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="The file to write.",
            show_default="exports/<recipe>_int8.onnx",
            rich_help_panel="Output",
        ),
    ] = None,
    overwrite: options.OverwriteOption = False,
    threads: options.TimingThreadsOption = 1,
    runs: options.RunsOption = Path("runs"),
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Write an int8 ONNX file of a run, if its accuracy drop stays within --max-drop.

    Training images calibrate the ranges, validation images decide, the test set is not read. The fastest kernels for
    this processor are found by timing. If every calibration loses too much, quantisation-aware training follows, with
    the same teacher, as the run <recipe>_qat. Exits with 3, and writes no file, if that loses too much as well.
    """
    from distill.pipeline import Options, quantize
    from distill.report.deployment import quantized_table

    output = Output(json=json, quiet=quiet)
    with ProgressPrinter(quiet=quiet) as printer:
        settings = Options(
            runs_dir=runs, device=device, timing_threads=threads, command=options.typed(), on_event=printer
        )
        made = quantize(
            run,
            max_drop=max_drop,
            prove=prove,
            calibration_images=calibration_images,
            train=train,
            epochs=epochs,
            out=out,
            overwrite=overwrite,
            options=settings,
        )
    output.show(made, lambda width: quantized_table(made, width))
