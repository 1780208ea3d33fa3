"""The picture of a sweep: validation accuracy by trial and by each swept key."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from distill.report.figure import TRAIN_COLOR, VAL_COLOR, drawing, label, save
from distill.report.sweep_map import SweepMap, map_of
from distill.results.sweeps import SweepReport, TrialRow, shown_value
from distill.text import cut, percent

__all__ = ["plot_sweep"]

_MAX_PANELS = 9
_MAX_TICKS = 14
_SPREAD = 0.2  # how far from its value's place a trial may stand
_PRUNED_COLOR = "#9A9A9A"


def plot_sweep(report: SweepReport, path: Path, *, log_keys: Sequence[str] = ()) -> Path | None:
    """Draw every trial against its number (of a search) and against each key, and a grid of two keys as a map.

    Args:
        log_keys: The keys that were searched on a logarithmic scale.

    Returns:
        ``path``; None where no trial has an accuracy.
    """
    rows = [row for row in report.trials if row.val_top1 is not None]
    if not rows:
        return None
    keys = list(dict.fromkeys(key for row in rows for key in row.params))
    if any(row.seed is not None for row in rows) and not keys:
        keys = ["seed"]
    panels: list[Callable[[Axes], None]] = []
    if report.kind == "search":
        panels.append(lambda axes: _history(axes, rows))
    panels += [_panel(rows, key, log=key in log_keys, grid=report.kind == "grid") for key in keys]
    panels = panels[:_MAX_PANELS]
    pairs = map_of(report)
    count = len(panels) + (pairs is not None)
    with drawing():
        columns = 2 if count == 4 else min(count, 3)
        lines = -(-count // columns)
        figure = Figure(figsize=(1.4 + 3.6 * columns, 0.7 + 3.0 * lines), layout="constrained")
        grid = figure.subplots(lines, columns, squeeze=False).ravel()
        for place, axes in enumerate(grid[: len(panels)]):
            panels[place](axes)
            axes.sharey(grid[0])
            axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
            axes.tick_params(labelleft=place % columns == 0)
            axes.set_ylabel("validation top-1" if place % columns == 0 else "")
        if pairs is not None:
            _draw_map(grid[len(panels)], pairs)
        for axes in grid[count:]:
            axes.set_visible(False)
        _legend(figure, rows, report)
        return save(figure, path)


def _draw_map(axes: Axes, pairs: SweepMap) -> None:
    """Means as shades with their numbers: what no panel of one key shows is where the two depend on each other."""
    means = [[math.nan if mean is None else mean for mean in row] for row in pairs.means]
    axes.imshow(means, cmap="Blues", aspect="auto")
    axes.grid(visible=False)
    known = sorted(mean for row in pairs.means for mean in row if mean is not None)
    middle = (known[0] + known[-1]) / 2
    for down, row in enumerate(pairs.means):
        for across, mean in enumerate(row):
            if mean is not None:
                color = "white" if mean > middle else "black"
                weight = "bold" if mean == pairs.best else "normal"
                axes.text(across, down, percent(mean, 1), ha="center", va="center", color=color, fontweight=weight)
    for axis, names in ((axes.yaxis, pairs.values[0]), (axes.xaxis, pairs.values[1])):
        axis.set_ticks(range(len(names)), [cut(name, 12) for name in names])
    label(axes, "Mean validation top-1, %", x=pairs.keys[1], y=pairs.keys[0])


def _panel(rows: Sequence[TrialRow], key: str, *, log: bool, grid: bool) -> Callable[[Axes], None]:
    values = {id(row): row.seed if key == "seed" else row.params.get(key) for row in rows}
    numbers = _are_numbers(values.values())
    if numbers and not grid:
        return lambda axes: _by_number(axes, rows, values, key, log=log)
    return lambda axes: _by_choice(axes, rows, values, key, sort=numbers)


def _are_numbers(values: Iterable[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _history(axes: Axes, rows: Sequence[TrialRow]) -> None:
    _dots(axes, [(float(row.number), row) for row in rows])
    finished = sorted((row for row in rows if row.status == "finished"), key=lambda row: row.number)
    numbers, best, top = [], [], 0.0
    for row in finished:
        top = max(top, row.val_top1 or 0.0)
        numbers.append(row.number)
        best.append(top)
    axes.step(numbers, best, where="post", color=VAL_COLOR, linewidth=1.2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    label(axes, "Best so far", x="trial", y="")


def _by_number(axes: Axes, rows: Sequence[TrialRow], values: Mapping[int, Any], key: str, *, log: bool) -> None:
    _dots(axes, [(float(values[id(row)]), row) for row in rows])
    if log:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    label(axes, key, x="log scale" if log else "", y="")


def _by_choice(axes: Axes, rows: Sequence[TrialRow], values: Mapping[int, Any], key: str, *, sort: bool) -> None:
    """One place for each value; a grid's values are few, and often not evenly spaced."""
    shown = {id(row): shown_value(values[id(row)]) for row in rows}
    if sort:
        names = [shown_value(value) for value in sorted(set(values.values()))]
    else:
        names = list(dict.fromkeys(shown.values()))
    names = list(dict.fromkeys(names))
    columns = [[row for row in rows if shown[id(row)] == name] for name in names]
    _dots(axes, [point for place, column in enumerate(columns) for point in _spread(place, column)])
    finished = [row for row in rows if row.status == "finished"]
    means = [_mean_of([row for row in finished if shown[id(row)] == name]) for name in names]
    known = [(place, mean) for place, mean in enumerate(means) if mean is not None]
    axes.plot([place for place, _ in known], [mean for _, mean in known], "_", color=VAL_COLOR, markersize=18, mew=2)
    step = -(-len(names) // _MAX_TICKS)
    long = max(len(name) for name in names) * len(names) > 40
    turned: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if long else {}
    axes.set_xticks(range(0, len(names), step), [cut(name, 24) for name in names[::step]], **turned)
    axes.set_xlim(-0.6, len(names) - 0.4)
    label(axes, key, x="", y="")


def _spread(place: int, rows: Sequence[TrialRow]) -> list[tuple[float, TrialRow]]:
    """The trials of one value side by side, so that equal ones are all seen."""
    half = _SPREAD * min(1.0, (len(rows) - 1) / 6)
    step = 2 * half / max(1, len(rows) - 1)
    return [(place - half + step * number, row) for number, row in enumerate(rows)]


def _mean_of(rows: Sequence[TrialRow]) -> float | None:
    tops = [row.val_top1 for row in rows if row.val_top1 is not None]
    return statistics.fmean(tops) if tops else None


def _dots(axes: Axes, points: Sequence[tuple[float, TrialRow]]) -> None:
    for finished, marker, color in ((False, "x", _PRUNED_COLOR), (True, "o", TRAIN_COLOR)):
        chosen = [(x, row.val_top1) for x, row in points if (row.status == "finished") is finished]
        if chosen:
            tops = [math.nan if top is None else top for _, top in chosen]
            axes.scatter([x for x, _ in chosen], tops, s=26, alpha=0.75, linewidths=1.2, marker=marker, color=color)


def _legend(figure: Figure, rows: Sequence[TrialRow], report: SweepReport) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], linestyle="", marker="o", color=TRAIN_COLOR, label="finished")]
    if any(row.status != "finished" for row in rows):
        handles.append(Line2D([], [], linestyle="", marker="x", color=_PRUNED_COLOR, label="pruned or unfinished"))
    if report.kind == "search":
        handles.append(Line2D([], [], color=VAL_COLOR, label="best so far"))
    keys = {key for row in rows for key in row.params}
    if report.kind == "grid" or not all(_are_numbers(row.params.get(key) for row in rows) for key in keys):
        handles.append(Line2D([], [], linestyle="", marker="_", markersize=12, mew=2, color=VAL_COLOR, label="mean"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
