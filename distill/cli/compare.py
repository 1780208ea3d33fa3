"""``distill compare``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distill.cli import completion, options
from distill.cli.output import Output
from distill.cli.progress import ProgressPrinter
from distill.cli.text_tables import check_csv, check_table, one_document
from distill.errors import UsageError

if TYPE_CHECKING:
    from distill.results.rows import Comparison

__all__ = ["EXAMPLES", "command"]

EXAMPLES = options.examples(
    "distill compare",
    "distill compare resnet152_cifar10 r18_small --threads 4 --csv table.csv",
    "distill compare --baseline quickstart_scratch --markdown table.md",
    "distill compare r18_small exports/r18_small_int8.onnx "
    "--require 'r18_small_int8.test_top1 >= r18_small.test_top1 - 0.003'",
    "distill compare r18_small exports/r18_small_int8.onnx --measured device.json",
    "distill compare --require 'student.test_top1 >= teacher.test_top1 - 0.01'",
)

_WHAT, _OUTPUT = "What to measure", "Output"


def command(
    *,
    references: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUNS",
            help="Names (each with all its seeds), run folders, or exported files (.onnx).",
            show_default="the newest run of every recipe and seed",
            autocompletion=completion.complete_runs,
        ),
    ] = None,
    latency: Annotated[
        bool, typer.Option("--latency/--no-latency", help="Time the models alternately.", rich_help_panel=_WHAT)
    ] = True,
    require: Annotated[
        list[str] | None,
        typer.Option(
            "--require",
            metavar="EXPR",
            help="Exit with 3 unless ROW.COLUMN >= ROW.COLUMN - NUMBER holds. A row is a name or a role; "
            "<=, >, <, == and plain numbers work too; baseline_* columns need a baseline. Repeatable.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            "--teacher",
            "-t",
            metavar="RUN",
            help="Teacher for rows that specify none.",
            show_default="the only one in the table, or the one its students specify",
            rich_help_panel=_WHAT,
            autocompletion=completion.complete_runs,
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            "-b",
            metavar="ROW",
            help="Compare every row with this one (a name, a folder, a role): better, worse or cannot tell, by a "
            "paired test on the same test images.",
            show_default="the run without a teacher beside a student, if only one can be meant",
            rich_help_panel=_WHAT,
            autocompletion=completion.complete_runs,
        ),
    ] = None,
    measured: Annotated[
        list[Path] | None,
        typer.Option(
            "--measured",
            metavar="FILE",
            help="Add a kit's results from another machine (device.json) as a row. Repeatable.",
            show_default=False,
            rich_help_panel=_WHAT,
        ),
    ] = None,
    device: options.DeviceOption = None,
    threads: options.TimingThreadsOption = 1,
    runs: options.RunsOption = Path("runs"),
    json: options.JsonOption = False,
    csv: options.CsvOption = None,
    markdown: Annotated[
        str | None,
        typer.Option(
            "--markdown",
            metavar="FILE",
            help="Also write a shorter table as Markdown, for a README; - prints it instead.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    latex: Annotated[
        str | None,
        typer.Option(
            "--latex",
            metavar="FILE",
            help="Also write a shorter table as LaTeX (booktabs), for a paper; - prints it instead.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    svg: Annotated[
        Path | None,
        typer.Option("--svg", metavar="FILE", help="Save the table as an SVG image.", rich_help_panel=_OUTPUT),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            metavar="FILE",
            help="Plot accuracy against latency and size (.svg, .png or .pdf).",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    overwrite: options.ReplaceOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Show accuracy, parameters and latency of runs and exported files side by side.

    Seeds of one recipe are one row: mean, standard deviation and n. Models are timed alternately, round by round, on
    this machine, so that drift affects all equally.
    """
    from distill.report.gates import check_gates, check_rows, parse_gate

    one_document(json=json, csv=csv, markdown=markdown, latex=latex)
    tables = {"csv": csv, "markdown": markdown, "latex": latex}
    _check_files(tables, svg, plot, overwrite=overwrite)
    gates = [parse_gate(text) for text in require or []]  # a typing mistake is told before minutes of measuring
    from distill.comparison import compare

    output = Output(json=json, quiet=quiet)
    with ProgressPrinter(quiet=quiet) as printer:
        comparison = compare(
            references or [],
            runs_dir=runs,
            latency=latency,
            device=device,
            threads_used=threads,
            teacher=teacher,
            baseline=baseline,
            reports=measured or [],
            check=partial(check_rows, gates),
            tell=printer,
        )
    _show(comparison, output, tables, svg=svg, plot=plot)
    check_gates(gates, comparison, tell=output.note)


def _check_files(tables: dict[str, str | None], svg: Path | None, plot: Path | None, *, overwrite: bool) -> None:
    """Refuse names that cannot be, and files of the user's, before minutes of measuring."""
    from distill.report.markup import LATEX_MARK, MARKDOWN_MARK
    from distill.results.rows import ROW_FIELDS

    check_csv(tables["csv"], ROW_FIELDS, overwrite=overwrite)
    check_table(tables["markdown"], mark=MARKDOWN_MARK, example="table.md", overwrite=overwrite)
    check_table(tables["latex"], mark=LATEX_MARK, example="table.tex", overwrite=overwrite)
    named = {f"--{kind}": Path(target) for kind, target in tables.items() if target not in (None, "-")}
    named |= {option: path for option, path in (("--svg", svg), ("--plot", plot)) if path is not None}
    places: dict[Path, str] = {}
    for option, path in named.items():
        if (other := places.setdefault(path.resolve(), option)) != option:
            raise UsageError(f"{other} and {option} name one file: {path}", hint="give each a name of its own")
    for picture, only in ((svg, "svg"), (plot, None)):
        if picture is not None:
            from distill.report.figure import check_name

            check_name(picture, overwrite=overwrite, only=only)


def _show(
    comparison: Comparison, output: Output, tables: dict[str, str | None], *, svg: Path | None, plot: Path | None
) -> None:
    from distill.report.comparison import comparison_csv, comparison_table
    from distill.report.markup import comparison_latex, comparison_markdown

    if "-" not in tables.values():
        output.show(comparison, lambda width: comparison_table(comparison, width))
    write = {"csv": comparison_csv, "markdown": comparison_markdown, "latex": comparison_latex}
    for kind, target in tables.items():
        if target is not None:
            output.text_file(write[kind](comparison), target)
    if svg is not None:
        from distill.report.svg import comparison_svg

        output.file(comparison_svg(comparison), svg)
    if plot is not None:
        from distill.report.plots import plot_comparison

        plot_comparison(comparison, plot)
        output.note(f"wrote {plot}")
