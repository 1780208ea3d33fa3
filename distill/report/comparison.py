"""What ``distill compare`` shows: its columns, and the lines below them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple

from rich.console import Group, RenderableType
from rich.text import Text

from distill.report.layout import Column, stacked, table_width
from distill.report.verdict import METHODS
from distill.results.roles import look_of
from distill.results.rows import ROW_FIELDS, Comparison, Row, row_labels
from distill.text import MISSING, count, counted, csv_text, fixed, percent, plain, signed, significant

__all__ = ["comparison_columns", "comparison_csv", "comparison_lines", "comparison_table", "comparison_width"]

_TELLING = 0.005  # half a point
_SHOWN = 0.05  # a p-value below it


def comparison_table(comparison: Comparison, width: int) -> RenderableType:
    """The comparison, and below it what it was measured on."""
    rows = comparison.rows
    if not rows:
        return Text("no finished runs to compare", style="dim")
    styles = [look_of(row.role).style for row in rows]
    lines = (Text(line, style="dim") for line in comparison_lines(comparison))
    notes = (Text(f"note: {plain(note)}", style="yellow") for note in comparison.notes)
    return Group(stacked(comparison_columns(rows), width, row_styles=styles), Text(), *lines, *notes)


def comparison_width(comparison: Comparison) -> int:
    """Characters the table needs side by side."""
    return table_width(comparison_columns(comparison.rows))


def comparison_columns(rows: Sequence[Row]) -> list[Column]:
    """All that ``rows`` have to show; what a short table can do without has a rank."""
    has_files = any(row.is_file for row in rows)
    names = Counter((row.name, row.runtime if has_files else None) for row in rows)
    datasets = [row.dataset for row in rows]
    runs = [row.run if names[row.name, row.runtime if has_files else None] > 1 else "" for row in rows]
    return [
        Column("recipe", [f"  {row.name}" if row.source_run else row.name for row in rows], words=True, style="bold"),
        *([Column("run", runs, words=True)] if any(runs) else []),
        *([Column("runtime", [row.runtime or MISSING for row in rows], words=True)] if has_files else []),
        *_machine_column(rows),
        Column("role", [row.role for row in rows], words=True, rank=1),
        Column("dataset", datasets, words=True, rank=0 if len(set(datasets)) > 1 else 1),
        Column("test top-1\n%", [_accuracy(row) for row in rows]),
        Column("95%\ninterval", [_interval(row.test_top1_low, row.test_top1_high) for row in rows], joins=True),
        *_class_columns(rows),
        *_baseline_columns(rows),
        Column("Δ teacher\npoints", [signed(row.delta_top1) for row in rows], rank=1),
        Column("params", [count(row.params) for row in rows]),
        Column("GMACs", [significant(row.gmacs) for row in rows]),
        Column("size\nMB", [fixed(row.size_mb, 2) for row in rows]),
        Column("latency b1, ms\nmedian / p90", [_latency(row) for row in rows]),
        *_front_column(rows),
        Column("b32, ms\nmedian", [_milliseconds(row.latency_b32_ms) for row in rows], rank=1),
        Column("images/s", [_speed(row.images_per_s) for row in rows], rank=1),
        *_times_columns(rows),
        Column("agreement\n%", [percent(row.agreement, 1) for row in rows], rank=1),
        Column("agreement\nwith its run, %", [percent(row.agreement_source, 1) for row in rows], rank=1),
        Column("ECE\n%", [percent(row.ece, 1) for row in rows]),
    ]


def _machine_column(rows: Sequence[Row]) -> list[Column]:
    """Where each row was measured, if any was elsewhere."""
    if not any(row.measured_on for row in rows):
        return []
    return [Column("measured on", [row.measured_on or "this machine" for row in rows], words=True)]


def _class_columns(rows: Sequence[Row]) -> list[Column]:
    """Averages over classes, where they tell something else than top-1: as of imbalanced classes."""
    averages = ("test_balanced_accuracy", "test_macro_f1")
    pairs = [(row.test_top1, getattr(row, name)) for row in rows for name in averages]
    if not any(top1 is not None and mean is not None and abs(top1 - mean) >= _TELLING for top1, mean in pairs):
        return []
    return [
        Column("balanced\naccuracy, %", [percent(row.test_balanced_accuracy) for row in rows]),
        Column("macro F1\n%", [percent(row.test_macro_f1) for row in rows]),
    ]


def _baseline_columns(rows: Sequence[Row]) -> list[Column]:
    """The difference from the row of choice, and what it says."""
    if not any(row.baseline for row in rows):
        return []
    bounds = [None if row.baseline_low is None else (row.baseline_low, row.baseline_high) for row in rows]
    return [
        Column("Δ baseline\npoints", [signed(row.baseline_difference) for row in rows]),
        Column(
            "95%\ninterval",
            [MISSING if each is None else f"{signed(each[0])} to {signed(each[1])}" for each in bounds],
            joins=True,
        ),
        Column("verdict", [_verdict(row) for row in rows], words=True),
    ]


def _verdict(row: Row) -> str:
    return "baseline" if row.baseline == row.run else row.baseline_verdict or MISSING


def _front_column(rows: Sequence[Row]) -> list[Column]:
    """Which rows no other beats, where two or more were timed."""
    if sum(row.on_front is not None for row in rows) < 2:
        return []
    return [Column("on the\nfront", ["yes" if row.on_front else "" for row in rows], words=True, rank=1)]


def _interval(low: float | None, high: float | None) -> str:
    return MISSING if low is None or high is None else f"{percent(low)} to {percent(high)}"


def _times_columns(rows: Sequence[Row]) -> list[Column]:
    """What people quote of a student, where a teacher is in the table."""
    if not any(row.teacher for row in rows):
        return []
    return [
        Column("times\nsmaller", [fixed(row.times_smaller, 1) for row in rows], rank=1),
        Column("times\nfaster", [fixed(row.times_faster, 1) for row in rows], rank=1),
    ]


def _accuracy(row: Row) -> str:
    if row.test_top1 is None or row.seeds <= 1:
        return percent(row.test_top1)
    spread = "" if row.test_top1_std is None else f" ± {percent(row.test_top1_std)}"
    return f"{percent(row.test_top1)}{spread} (n={row.seeds})"


def _latency(row: Row) -> str:
    if row.latency_b1_ms is None:
        return MISSING
    return f"{_milliseconds(row.latency_b1_ms)} / {_milliseconds(row.latency_b1_p90_ms)}"


def _milliseconds(value: float | None) -> str:
    return fixed(value, 2 if value is None or value < 100 else 1)


def _speed(value: float | None) -> str:
    return fixed(value, 0 if value is None or value >= 100 else 1)


def comparison_lines(comparison: Comparison) -> list[str]:
    """What the figures are of: test images, machine, calls, seeds, tests, versions."""
    threads = counted(comparison.threads, "thread")
    lines = [f"{plain(comparison.device)}, {threads}"]
    if tested := _test_images(comparison.rows):
        lines.insert(0, f"accuracy on {tested}")
    if comparison.latency_n is not None:
        lines[-1] += f"; latency of {comparison.latency_n:,} calls a model or more, in turn, after warm-up"
    if any(row.seeds > 1 for row in comparison.rows):
        lines.append("±: sample standard deviation over n seeds")
    lines += _statistics_lines(comparison.rows)
    if comparison.versions:
        lines.append(", ".join(f"{plain(name)} {plain(version)}" for name, version in comparison.versions.items()))
    return lines


def _statistics_lines(rows: Sequence[Row]) -> list[str]:
    """How intervals and verdicts were come by, and what would settle those that cannot tell."""
    lines = []
    if any(row.test_top1_low is not None for row in rows):
        several = "; over seeds Student's t" if any(row.seeds > 1 for row in rows) else ""
        lines.append(f"95% interval: Wilson's, of the test images{several}")
    methods = dict.fromkeys(row.baseline_method for row in rows if row.baseline_method)
    if methods:
        lines.append(f"against the baseline: {'; '.join(METHODS[each] for each in methods)}")
    if any(row.on_front for row in rows):
        front = "is as accurate and faster for one image, or as fast and more accurate"
        lines.append(f"on the front: no other row that was tested on the same images {front}")
    lines += _several_methods_line(rows)
    for row, label in zip(rows, row_labels(rows), strict=True):
        if row.baseline_verdict == "cannot tell":
            unit, or_else = ("images", "images") if row.baseline_method == "mcnemar" else ("seeds", "seeds or images")
            more = f"about {count(row.baseline_needed)} {unit} would" if row.baseline_needed else f"more {or_else} may"
            lines.append(f"{plain(label)} against the baseline: cannot tell; {more}")
    return lines


def _several_methods_line(rows: Sequence[Row]) -> list[str]:
    """Of several methods held against one row, which differences are not shown where all are looked at together."""
    named = list(zip(rows, row_labels(rows), strict=True))
    lines = []
    for baseline in dict.fromkeys(row.baseline for row in rows if row.baseline_p_holm is not None):
        methods = [(row, label) for row, label in named if row.baseline == baseline and row.baseline_p_holm is not None]
        if len(methods) < 2:  # nothing is looked at together
            continue
        alone = [f"{plain(label)} (p {row.baseline_p_holm:.2g})" for row, label in methods if _is_alone(row)]
        if alone:
            lines.append(
                f"each verdict stands alone, at 5%; among {len(methods)} methods, by Holm's rule, no difference is "
                f"shown of {', '.join(alone)}"
            )
    return lines


def _is_alone(row: Row) -> bool:
    """Whether a verdict does not outlast the other methods."""
    return row.baseline_verdict in ("better", "worse") and (row.baseline_p_holm or 0.0) >= _SHOWN


def _test_images(rows: Sequence[Row]) -> str:
    """How many images the accuracies are of: ``10,000 test images of cifar10``."""
    own = [row for row in rows if row.test_images is not None and row.measured_on is None]  # else a device's, of these
    sets = dict.fromkeys((row.dataset, row.test_images, row.test_set) for row in own)
    counts = Counter((dataset, images) for dataset, images, _ in sets)
    return ", ".join(
        f"{count(images)}{f' and {count(images)} other' * (often - 1)} test images of {plain(dataset)}"
        for (dataset, images), often in counts.items()
    )


def comparison_csv(comparison: Comparison) -> str:
    """Every field of every row, with all digits."""
    return csv_text(ROW_FIELDS, (astuple(row) for row in comparison.rows))
