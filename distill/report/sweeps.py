"""A sweep's trials as tables: means over seeds, each trial, a map of two keys, what mattered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from distill.report.layout import Column, stacked
from distill.report.sweep_map import SweepMap, map_of
from distill.results.sweeps import GroupRow, SweepReport, TrialRow, shown_value
from distill.text import MISSING, count, duration, percent, plain

__all__ = ["sweep_table"]

_MAX_ROWS = 40
_BAR_CELLS = 24


def sweep_table(report: SweepReport, width: int) -> RenderableType:
    """Means over seeds where there are some, the trials, best first, what mattered, and where everything is."""
    parts: list[RenderableType] = []
    if report.groups:
        parts += [_groups_table(report, width), Text()]
    parts += [_trials_table(report, width), Text()]
    if (pairs := map_of(report)) is not None:
        parts += [_map_table(pairs, width), Text()]
    if report.importances:
        parts += [_importances(report), Text()]
    return Group(*parts, *_ending(report))


def _groups_table(report: SweepReport, width: int) -> RenderableType:
    ranked = sorted(report.groups, key=lambda row: -1.0 if row.val_top1 is None else row.val_top1, reverse=True)
    rows = ranked[:_MAX_ROWS]
    rank = Column("mean", [str(place) for place in range(1, len(rows) + 1)], style="bold")
    columns = [
        rank,
        *_param_columns([row.params for row in rows]),
        Column("val top-1, %\nmean ± std", [_mean(row) for row in rows]),
        Column("n", [count(row.seeds) for row in rows]),
        Column("time\na run", [duration(row.seconds) for row in rows]),
    ]
    table = stacked(columns, width, row_styles=[_group_style(row, report) for row in rows])
    return Group(table, *_left_out(len(ranked), report))


def _map_table(pairs: SweepMap, width: int) -> RenderableType:
    down, across = pairs.keys
    columns = [Column(plain(down), pairs.values[0], words=True, style="bold")]
    for place, value in enumerate(pairs.values[1]):
        columns.append(Column(plain(value), [percent(row[place]) for row in pairs.means]))
    title = Text(f"mean val top-1, % (across: {plain(across)})", style="bold")
    return Group(title, stacked(columns, width))


def _mean(row: GroupRow) -> str:
    spread = "" if row.val_top1_std is None else f" ± {percent(row.val_top1_std)}"
    return f"{percent(row.val_top1)}{spread}"


def _trials_table(report: SweepReport, width: int) -> RenderableType:
    ranked = sorted(report.trials, key=_rank)
    rows = ranked[:_MAX_ROWS]
    columns = [
        Column("trial", [str(row.number) for row in rows], style="bold"),
        *_param_columns([row.params for row in rows]),
        Column("seed", [MISSING if row.seed is None else str(row.seed) for row in rows]),
        Column("val top-1\n%", [percent(row.val_top1) for row in rows]),
        Column("epochs", [count(row.epochs) for row in rows]),
        Column("time", [duration(row.seconds) for row in rows]),
        Column("status", [_status(row) for row in rows], words=True),
        Column("run", [row.run or "" for row in rows], words=True),
    ]
    if all(row.status == "finished" for row in report.trials):
        columns = [column for column in columns if column.head != "status"]
    styles = [_row_style(row, report) for row in rows]
    failed = [row for row in report.trials if row.error]
    errors = [Text(f"trial {row.number} failed: {plain(row.error)}", style="yellow") for row in failed[:5]]
    return Group(stacked(columns, width, row_styles=styles), *_left_out(len(ranked), report), *errors)


def _status(row: TrialRow) -> str:
    return "" if row.status == "finished" else row.status


def _rank(row: TrialRow) -> tuple[int, float, int]:
    group = {"finished": 0, "pruned": 1}.get(row.status, 2)
    return group, -(row.val_top1 if row.val_top1 is not None else -1.0), row.number


def _row_style(row: TrialRow, report: SweepReport) -> str:
    if report.best is not None and row.number == report.best.trial:
        return "green"
    return "" if row.status == "finished" else "dim"


def _group_style(row: GroupRow, report: SweepReport) -> str:
    return "green" if report.best is not None and row.params == report.best.params else ""


def _left_out(rows: int, report: SweepReport) -> list[Text]:
    if rows <= _MAX_ROWS:
        return []
    return [Text(f"and {rows - _MAX_ROWS:,} more: {plain(Path(report.folder) / 'result.json')}", style="dim")]


def _param_columns(params: Sequence[Mapping[str, Any]]) -> list[Column]:
    keys = list(dict.fromkeys(key for each in params for key in each))
    columns = []
    for key in keys:
        cells = [shown_value(each[key]) if key in each else MISSING for each in params]
        numbers = all(isinstance(each.get(key), int | float) and not isinstance(each.get(key), bool) for each in params)
        columns.append(Column(key, cells, words=not numbers))
    return columns


def _importances(report: SweepReport) -> RenderableType:
    assert report.importances
    ranked = sorted(report.importances.items(), key=lambda item: -item[1])
    name_width = max(len(plain(key)) for key, _ in ranked)
    lines = [Text(f"importance ({report.importance_method})", style="bold")]
    for key, share in ranked:
        bar = "█" * round(_BAR_CELLS * share)
        lines.append(Text.assemble(f"  {plain(key):<{name_width}}  {100 * share:>5.1f} %  ", (bar, "cyan")))
    return Group(*lines)


def _ending(report: SweepReport) -> list[RenderableType]:
    lines: list[RenderableType] = []
    if report.groups and any(row.val_top1_std is not None for row in report.groups):
        lines.append(Text("±: sample standard deviation over n seeds", style="dim"))
    if report.best is not None:
        lines.append(Text(f"best recipe: {plain(report.best.recipe)}"))
    if report.plot is not None:
        lines.append(Text(f"plot: {plain(report.plot)}"))
    if report.storage is not None:
        lines.append(Text(f"study: {plain(report.name)} in {plain(report.storage)}", style="dim"))
    return lines + [Text(f"note: {plain(note)}", style="yellow") for note in report.notes]
