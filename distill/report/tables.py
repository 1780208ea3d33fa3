"""Tables of a terminal, from dataclasses: what training, dry runs, lists and ``distill doctor`` print."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import mean, stdev
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from distill.code import Offered
from distill.report.layout import Column, fitted, key_values, stacked
from distill.results.roles import look_of
from distill.results.rows import Check, DryRun, ModelRow, ModelSummary, RecipeRow
from distill.results.runs import RunResult
from distill.text import MISSING, count, duration, percent, plain, significant

if TYPE_CHECKING:
    from distill.recipe import ObjectiveKind, SchemaKey

__all__ = [
    "doctor_table",
    "dry_run_table",
    "layers_table",
    "models_table",
    "objective_table",
    "objectives_table",
    "recipes_table",
    "result_table",
    "schema_table",
    "seeds_table",
]


def result_table(result: RunResult) -> RenderableType:
    """What a training run came to."""
    top1 = result.val_top1
    pairs = [
        ("run", str(result.run)),
        ("status", result.status),
        ("epochs", count(result.epochs)),
        ("val top-1", f"{MISSING} (no validation images)" if top1 is None else f"{percent(top1)} %"),
    ]
    if result.epochs:  # weights that were averaged, cut or imported had no training
        pairs += [("time", duration(result.seconds)), ("speed", f"{count(result.images_per_s)} images/s")]
    return key_values(pairs)


def seeds_table(results: Sequence[RunResult], seeds: Sequence[int], width: int) -> RenderableType:
    """What the runs of several seeds came to, and their mean."""
    top1 = [result.val_top1 for result in results if result.val_top1 is not None]
    columns = [
        Column("run", [str(result.run) for result in results], words=True, style="bold"),
        Column("seed", [str(seed) for seed in seeds]),
        Column("epochs", [count(result.epochs) for result in results]),
        Column("val top-1\n%", [percent(result.val_top1) for result in results]),
        Column("time", [duration(result.seconds) for result in results]),
    ]
    table = stacked(columns, width)
    if len(top1) < 2:
        return table
    line = f"val top-1 {percent(mean(top1))} ± {percent(stdev(top1))} % (n={len(top1)}; ±: sample standard deviation)"
    return Group(table, Text(), Text(line, style="dim"))


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
        ("GMACs", "" if dry.gmacs is None else f"{significant(dry.gmacs)} an image"),
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
        Column("GMACs", [significant(row.gmacs) for row in models]),
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
        f"{plain(model.name)}: {count(model.params)} parameters, {significant(model.gmacs)} GMACs "
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


def objectives_table(kinds: Sequence[ObjectiveKind], width: int) -> RenderableType:
    """Every objective: what it minimises beside the cross-entropy, what it asks of a teacher, its weights."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", show_edge=False)
    table.add_column("kind", style="bold", no_wrap=True)
    for head in ("asks a teacher for", "bank", "minimises, beside CE", "defaults"):
        table.add_column(head, overflow="fold")
    table.add_column("source", no_wrap=width >= 120, overflow="fold")
    for each in kinds:
        settings = ", ".join(f"{name} {_setting(value)}" for name, value in each.settings.items())
        bank = "yes" if each.from_bank else MISSING if each.asks == "nothing" else "no"
        asks = MISSING if each.asks == "nothing" else each.asks
        cells = (each.kind, asks, bank, each.minimises, settings, each.source)
        table.add_row(*(Text(plain(cell)) for cell in cells))
    return table


def _setting(value: float | tuple[float, ...]) -> str:
    return " ".join(f"{each:g}" for each in value) if isinstance(value, tuple) else f"{value:g}"


def objective_table(kind: ObjectiveKind, keys: Sequence[SchemaKey], width: int) -> RenderableType:
    """One objective, and every key that it takes."""
    pairs = [
        ("kind", kind.kind),
        ("minimises", kind.minimises),
        ("asks a teacher for", kind.asks),
        ("source", kind.source),
    ]
    alone = [replace(key, variants=()) for key in keys]
    return Group(key_values([pair for pair in pairs if pair[1]]), Text(), schema_table(alone, width))


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
