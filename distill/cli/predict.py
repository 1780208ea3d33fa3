"""``distill predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distill.cli import completion, options
from distill.cli.output import Output
from distill.cli.progress import ProgressPrinter
from distill.cli.text_tables import check_csv, one_document

__all__ = ["EXAMPLES", "command"]

EXAMPLES = options.examples(
    "distill predict r18_small photo.png",
    "distill predict r18_small pictures/ --top 3 --grid predictions.png",
)


def command(
    *,
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A run folder, a name (its latest finished run), or an exported file.",
            show_default=False,
            autocompletion=completion.complete_runs,
        ),
    ],
    paths: Annotated[
        list[str], typer.Argument(metavar="PATHS", help="Pictures or folders of pictures.", show_default=False)
    ],
    top: Annotated[int, typer.Option("--top", min=1, metavar="K", help="Number of classes per picture.")] = 5,
    teacher: Annotated[
        str | None,
        typer.Option(
            "--teacher",
            "-t",
            metavar="RUN",
            help="Run this teacher too; in the grid, disagreements come first.",
            autocompletion=completion.complete_runs,
        ),
    ] = None,
    calibrated: options.CalibratedOption = False,
    device: options.DeviceOption = None,
    threads: options.ThreadsOption = None,
    runs: options.RunsOption = Path("runs"),
    json: options.JsonOption = False,
    csv: options.CsvOption = None,
    grid: Annotated[
        Path | None,
        typer.Option(
            "--grid",
            metavar="FILE",
            help="Draw up to 100 pictures with label and prediction (.png, .svg or .pdf).",
            rich_help_panel="Output",
        ),
    ] = None,
    overwrite: options.ReplaceOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Classify pictures: list the most probable classes of each.

    Files that are no readable picture are listed on stderr at the end, with exit code 1; the others are classified, and
    alone in --json and --csv. A path that does not exist is taken for a mistake: nothing is classified, and the exit
    code is 2.
    """
    one_document(json=json, csv=csv)
    from distill.report.evaluation import PREDICTION_FIELDS, predictions_csv, predictions_table

    check_csv(csv, PREDICTION_FIELDS, overwrite=overwrite)
    if grid is not None:
        from distill.report.figure import check_name

        check_name(grid, overwrite=overwrite)  # before minutes of predicting
    from distill.pipeline import Options, predict

    output = Output(json=json, quiet=quiet)
    with ProgressPrinter(quiet=quiet) as printer:
        settings = Options(runs_dir=runs, device=device, threads=threads, on_event=printer)
        predictions = predict(
            run, paths, top=top, teacher=teacher, calibrated=calibrated, leave_out=grid, options=settings
        )
    if csv != "-":
        output.show(predictions.rows, lambda width: predictions_table(predictions.rows, width))
    if csv is not None:
        output.text_file(predictions_csv(predictions.rows), csv)
    if grid is not None and predictions.rows:
        from distill.report.pictures import plot_predictions

        plot_predictions(predictions.rows, grid)
        output.note(f"wrote {grid}")
    predictions.require_all()
