"""``distill export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from distill.cli import options
from distill.cli.output import Output
from distill.cli.progress import ProgressPrinter

__all__ = ["EXAMPLES", "command"]

EXAMPLES = options.examples(
    "distill export r18_small",
    "distill export runs/r18_small/003 --to torch --out r18_small.pt2",
    "distill export lite0_cifar10 --to timm --out lite0_timm",
)


def command(
    *,
    run: options.RunArgument,
    to: Annotated[
        Literal["onnx", "torch", "timm"],
        typer.Option(
            "--to",
            help="ONNX for any runtime; a torch.export program (.pt2); or, for timm networks, a timm folder.",
            rich_help_panel="Output",
        ),
    ] = "onnx",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="The file to write, or the timm folder.",
            show_default="exports/<recipe>.onnx, .pt2, or <recipe>_timm/",
            rich_help_panel="Output",
        ),
    ] = None,
    calibrated: options.CalibratedOption = False,
    overwrite: options.OverwriteOption = False,
    threads: options.ThreadsOption = None,
    runs: options.RunsOption = Path("runs"),
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Export a run's network as one file that takes uint8 images; as ONNX it needs no PyTorch.

    Scaling, normalisation and resizing are included, batch norm is folded, and the file lists its classes. It is
    written only if it agrees with the network on up to 512 validation images. A timm folder (config.json,
    model.safetensors) is checked by running it in timm, and takes the output of timm's own transforms.
    """
    from distill.pipeline import Options, export
    from distill.report.deployment import exported_table

    output = Output(json=json, quiet=quiet)
    with ProgressPrinter(quiet=quiet) as printer:
        settings = Options(runs_dir=runs, threads=threads, command=options.typed(), on_event=printer)
        made = export(run, to=to, out=out, calibrated=calibrated, overwrite=overwrite, options=settings)
    output.show(made, lambda _: exported_table(made))
