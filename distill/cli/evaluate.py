"""``distill evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from distill.cli import completion, options
from distill.cli.output import Output
from distill.cli.progress import ProgressPrinter
from distill.errors import UsageError

__all__ = ["EXAMPLES", "command"]

EXAMPLES = options.examples(
    "distill evaluate r18_small",
    "distill evaluate runs/r18_small/003 --split val --json",
    "distill evaluate r18_small --calibrated",
    "distill evaluate resnet152_cifar10 r18_small --corruptions",
)

_MORE = "More to measure"
_MANY_IMAGES = 2000  # images, for corruptions

_Calibrated = Annotated[
    bool,
    typer.Option(
        "--calibrated",
        help="Fit a temperature on validation images, store it beside the run, and report calibration with it too.",
        rich_help_panel=_MORE,
    ),
]
_Corruptions = Annotated[
    bool,
    typer.Option(
        "--corruptions",
        help="Accuracy under Gaussian noise, defocus and motion blur, brightness, contrast and JPEG, at five "
        "severities each; several runs share one figure.",
        rich_help_panel=_MORE,
    ),
]
_Images = Annotated[
    int,
    typer.Option(
        "--corruption-images",
        min=2,
        metavar="N",
        help="Corrupt N images of the split, the same for every run; each in 30 versions.",
        rich_help_panel=_MORE,
    ),
]
_Figure = Annotated[
    Path | None,
    typer.Option(
        "--figure",
        metavar="FILE",
        help="Figure of several runs under corruptions (.svg, .png or .pdf).",
        show_default="corruptions.svg",
        rich_help_panel=_MORE,
    ),
]


def command(
    *,
    runs_to_measure: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN",
            help="Run folders, names (each its latest finished run), or exported files.",
            show_default=False,
            autocompletion=completion.complete_runs,
        ),
    ],
    split: options.SplitOption = "test",
    again: Annotated[
        bool, typer.Option("--again", help="Ignore stored predictions and run the network again.")
    ] = False,
    plots: Annotated[
        bool, typer.Option("--plots/--no-plots", help="Plot the results into the run's evaluation/.")
    ] = True,
    tta: Annotated[
        Literal["none", "flip"],
        typer.Option(
            "--tta",
            help="Test-time augmentation; flip: an image and its mirror image. Results are printed, not stored.",
        ),
    ] = "none",
    calibrated: _Calibrated = False,
    corruptions: _Corruptions = False,
    corruption_images: _Images = _MANY_IMAGES,
    figure: _Figure = None,
    overwrite: options.ReplaceOption = False,
    device: options.DeviceOption = None,
    threads: options.ThreadsOption = None,
    runs: options.RunsOption = Path("runs"),
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Evaluate runs: per-class metrics, confusion matrix, calibration, corrupted images."""
    if corruption_images != _MANY_IMAGES and not corruptions:
        raise UsageError("--corruption-images without --corruptions", hint="add --corruptions")
    several = len(runs_to_measure) > 1
    figure = _figure(figure, overwrite=overwrite, drawn=several and corruptions, default=plots)
    from distill.pipeline import Options, evaluate_runs
    from distill.report.evaluation import evaluation_table, evaluations_table

    output = Output(json=json, quiet=quiet)
    with ProgressPrinter(quiet=quiet) as printer:
        many = evaluate_runs(
            runs_to_measure,
            split=split,
            again=again,
            plots=plots,
            tta=tta,
            calibrated=calibrated,
            corruptions=corruptions,
            corruption_images=corruption_images,
            figure=figure,
            options=Options(runs_dir=runs, device=device, threads=threads, on_event=printer),
        )
    if several:
        output.show(many, lambda width: evaluations_table(many, width))
    else:
        output.show(many.runs[0], lambda width: evaluation_table(many.runs[0], width))
    for file in many.files:
        output.note(f"wrote {file}")


def _figure(figure: Path | None, *, overwrite: bool, drawn: bool, default: bool) -> Path | None:
    """Where the picture of all goes, which must be no file of the user's; None where there is none to draw."""
    if figure is not None and not drawn:
        raise UsageError("--figure is of several runs under --corruptions", hint="name two runs, and --corruptions")
    figure = figure or (Path("corruptions.svg") if default else None)
    if figure is None or not drawn:
        return None
    from distill.report.figure import check_name

    check_name(figure, overwrite=overwrite)  # before minutes of measuring
    return figure
