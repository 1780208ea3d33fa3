"""Tables of a terminal, from dataclasses: what ``distill compare`` and its sisters print."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from distill.code import Offered
from distill.report.layout import Column, fitted, key_values, stacked, table_width
from distill.report.verdict import METHODS
from distill.results.roles import look_of
from distill.results.rows import (
    ROW_FIELDS,
    Check,
    Comparison,
    DryRun,
    ModelRow,
    ModelSummary,
    RecipeRow,
    Row,
    row_labels,
)
from distill.results.runs import RunResult
from distill.text import MISSING, count, counted, csv_text, duration, fixed, percent, plain, signed

if TYPE_CHECKING:
    from distill.recipe import SchemaKey

__all__ = [
    "comparison_csv",
    "comparison_table",
    "comparison_width",
    "doctor_table",
    "dry_run_table",
    "layers_table",
    "models_table",
    "recipes_table",
    "result_table",
    "schema_table",
]

_TELLING = 0.005  # half a point


def comparison_table(comparison: Comparison, width: int) -> RenderableType:
    """The comparison, and below it what it was measured on."""
    rows = comparison.rows
    if not rows:
        return Text("no finished runs to compare", style="dim")
    styles = [look_of(row.role).style for row in rows]
    return Group(stacked(_comparison_columns(rows), width, row_styles=styles), Text(), _measured_on(comparison))


def comparison_width(comparison: Comparison) -> int:
    """Characters the table needs side by side."""
    return table_width(_comparison_columns(comparison.rows))


def _comparison_columns(rows: Sequence[Row]) -> list[Column]:
    has_files = any(row.is_file for row in rows)
    names = Counter((row.name, row.runtime if has_files else None) for row in rows)
    runs = [row.run if names[row.name, row.runtime if has_files else None] > 1 else "" for row in rows]
    return [
        Column("recipe", [f"  {row.name}" if row.source_run else row.name for row in rows], words=True, style="bold"),
        *([Column("run", runs, words=True)] if any(runs) else []),
        *([Column("runtime", [row.runtime or MISSING for row in rows], words=True)] if has_files else []),
        *_machine_column(rows),
        Column("role", [row.role for row in rows], words=True),
        Column("dataset", [row.dataset for row in rows], words=True),
        Column("test top-1\n%", [_accuracy(row) for row in rows]),
        Column("95%\ninterval", [_interval(row.test_top1_low, row.test_top1_high) for row in rows], joins=True),
        *_class_columns(rows),
        *_baseline_columns(rows),
        Column("Δ teacher\npoints", [signed(row.delta_top1) for row in rows]),
        Column("params", [count(row.params) for row in rows]),
        Column("GMACs", [_significant(row.gmacs) for row in rows]),
        Column("size\nMB", [fixed(row.size_mb, 2) for row in rows]),
        Column("latency b1, ms\nmedian / p90", [_latency(row) for row in rows]),
        *_front_column(rows),
        Column("b32, ms\nmedian", [_milliseconds(row.latency_b32_ms) for row in rows]),
        Column("images/s", [_speed(row.images_per_s) for row in rows]),
        *_times_columns(rows),
        Column("agreement\n%", [percent(row.agreement, 1) for row in rows]),
        Column("agreement\nwith its run, %", [percent(row.agreement_source, 1) for row in rows]),
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
            [MISSING if each is None else f"{signed(each[0])} {signed(each[1])}" for each in bounds],
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
    return [Column("on the\nfront", ["yes" if row.on_front else "" for row in rows], words=True)]


def _interval(low: float | None, high: float | None) -> str:
    return MISSING if low is None or high is None else f"{percent(low)} to {percent(high)}"


def _times_columns(rows: Sequence[Row]) -> list[Column]:
    """What people quote of a student, where a teacher is in the table."""
    if not any(row.teacher for row in rows):
        return []
    return [
        Column("times\nsmaller", [fixed(row.times_smaller, 1) for row in rows]),
        Column("times\nfaster", [fixed(row.times_faster, 1) for row in rows]),
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


def _significant(value: float | None) -> str:
    """Three digits that mean something, whether it is 0.000417 or 78.2."""
    if value is None:
        return MISSING
    return f"{value:.3g}" if 0 < abs(value) < 1 else fixed(value, 2)


def _measured_on(comparison: Comparison) -> RenderableType:
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
    notes = [Text(f"note: {plain(note)}", style="yellow") for note in comparison.notes]
    return Group(*(Text(line, style="dim") for line in lines), *notes)


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
    for row, label in zip(rows, row_labels(rows), strict=True):
        if row.baseline_verdict == "cannot tell":
            unit, or_else = ("images", "images") if row.baseline_method == "mcnemar" else ("seeds", "seeds or images")
            more = f"about {count(row.baseline_needed)} {unit} would" if row.baseline_needed else f"more {or_else} may"
            lines.append(f"{plain(label)} against the baseline: cannot tell; {more}")
    return lines


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


def result_table(result: RunResult) -> RenderableType:
    """What a training run came to."""
    top1 = result.val_top1
    pairs = [
        ("run", str(result.run)),
        ("status", result.status),
        ("epochs", count(result.epochs)),
        ("val top-1", f"{MISSING} (no validation images)" if top1 is None else f"{percent(top1)} %"),
        ("time", duration(result.seconds)),
        ("speed", f"{count(result.images_per_s)} images/s"),
    ]
    return key_values(pairs)


def dry_run_table(dry: DryRun) -> RenderableType:
    """What a run would be."""
    budget = f" of {count(dry.max_params)} allowed" if dry.max_params is not None else ""
    pairs = [
        ("recipe", f"{dry.name} ({dry.role})"),
        ("data", f"{dry.dataset}: {count(dry.train_images)} training, {count(dry.val_images)} validation images"),
        ("device", f"{dry.device}, {dry.precision}"),
        ("teacher", dry.teacher or ""),
        ("batch", f"{_shape(dry.input_shape)} -> {_shape(dry.output_shape)}"),
        ("parameters", f"{count(dry.params)}{budget}"),
        ("GMACs", "" if dry.gmacs is None else f"{_significant(dry.gmacs)} an image"),
        ("steps", f"{count(dry.steps_per_epoch)} an epoch, {count(dry.epochs)} epochs"),
        ("memory", "" if dry.memory_mb is None else f"{count(dry.memory_mb)} MB at the peak"),
        ("step", "" if dry.seconds_per_step is None else f"{1000 * dry.seconds_per_step:,.1f} ms"),
        ("whole run", "" if dry.seconds is None else f"about {duration(dry.seconds)}"),
    ]
    notes = [Text(f"note: {plain(note)}", style="yellow") for note in dry.notes]
    return Group(key_values([pair for pair in pairs if pair[1]]), *notes)


def _shape(shape: Sequence[int]) -> str:
    return "x".join(str(size) for size in shape)


def models_table(models: Sequence[ModelRow], width: int, offered: Sequence[Offered] = ()) -> RenderableType:
    """Networks by name; below them what installed packages offer."""
    columns = [
        Column("name", [row.name for row in models], words=True, style="bold"),
        Column("role", [row.role for row in models], words=True),
        Column("source", [row.source for row in models], words=True, rank=1),
        Column("params", [count(row.params) for row in models]),
        Column("GMACs", [_significant(row.gmacs) for row in models]),
        Column("input", [f"{row.input_size}x{row.input_size}" for row in models]),
        Column("classes", [count(row.num_classes) for row in models]),
    ]
    table = fitted(columns, width, row_styles=[look_of(row.role).style for row in models])
    return Group(table, *[f"{plain(each.name)}: {each.role}, of {plain(each.origin)}" for each in offered])


def layers_table(summary: ModelSummary, width: int) -> RenderableType:
    """A network layer by layer, and its sums."""
    layers = summary.layers
    columns = [
        Column("layer", [layer.name for layer in layers], words=True, style="bold"),
        Column("kind", [layer.kind for layer in layers], words=True),
        Column("output", [_shape(layer.output_shape) for layer in layers]),
        Column("params", [count(layer.params) for layer in layers]),
        Column("MACs", [count(layer.macs) for layer in layers]),
    ]
    model = summary.model
    total = (
        f"{plain(model.name)}: {count(model.params)} parameters, {_significant(model.gmacs)} GMACs "
        f"at {model.input_size}x{model.input_size}, {model.num_classes} classes"
    )
    if not summary.stages:
        return Group(stacked(columns, width), Text(), Text(total))
    stages = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in summary.stages.items())
    return Group(stacked(columns, width), Text(), Text(total), Text(f"stages for objective.features: {stages}"))


def recipes_table(recipes: Sequence[RecipeRow], width: int) -> RenderableType:
    """Bundled recipes by name."""
    columns = [
        Column("name", [row.name for row in recipes], words=True, style="bold"),
        Column("role", [row.role for row in recipes], words=True),
        Column("dataset", [row.dataset for row in recipes], words=True),
        Column("model", [row.model for row in recipes], words=True, rank=2),
        Column("objective", [row.objective for row in recipes], words=True, rank=1),
        Column("teacher", [row.teacher or MISSING for row in recipes], words=True, rank=3),
        Column("epochs", [count(row.epochs) for row in recipes]),
    ]
    return fitted(columns, width, row_styles=[look_of(row.role).style for row in recipes])


def schema_table(keys: Sequence[SchemaKey], width: int) -> RenderableType:
    """Every key of a recipe: one that belongs to some variants of its section alone says to which."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", show_edge=False)
    table.add_column("key", style="bold", overflow="fold", min_width=min(24, width // 3))
    for head in ("takes", "default", "what it is"):
        table.add_column(head, overflow="fold")
    for key in keys:
        only = f" ({', '.join(key.variants)})" if key.variants else ""
        table.add_row(*(Text(plain(cell)) for cell in (key.path, key.type, key.default, f"{key.description}{only}")))
    return table


def doctor_table(checks: Sequence[Check]) -> RenderableType:
    """What is here, what is not, and how to get it; grouped by topic."""
    marks = {"ok": ("ok", "green"), "absent": (MISSING, "yellow"), "broken": ("broken", "bold red")}
    topics: dict[str, list[Check]] = {}
    for check in checks:
        topics.setdefault(check.topic, []).append(check)
    name_width = max((len(check.name) for check in checks), default=0)
    lines: list[Text] = []
    for topic, members in topics.items():
        lines.append(Text(topic, style="bold"))
        for check in members:
            mark, style = marks[check.status]
            detail = plain(check.detail) + (f"\n{'':{name_width + 12}}{check.fix}" if check.fix else "")
            lines.append(Text.assemble("  ", (f"{mark:<6}", style), f"  {check.name:<{name_width}}  ", detail))
    return Group(*lines)
