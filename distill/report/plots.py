"""Pictures of runs: curves over epochs, confusion matrices, accuracy against cost."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from distill.report.figure import TRAIN_COLOR, VAL_COLOR, drawing, fit, label, save
from distill.report.label_placement import Box, beside, marks_of
from distill.report.lines import loss_parts
from distill.results.metrics import PerClass
from distill.results.roles import look_of, role_order
from distill.results.rows import Comparison, Row
from distill.text import plain, short_number, shorten

__all__ = ["plot_classes", "plot_comparison", "plot_confusion", "plot_run"]

Metrics = Sequence[Mapping[str, Any]]

_MAX_NUMBERS = 20  # a larger confusion matrix has no room for digits
_MAX_LABELS = 40  # nor one with more classes for their names at full size,
_MAX_SMALL_LABELS = 120  # nor one with more than these for small ones
_NAME_SIZE, _NAME_GAP, _LETTER_WIDTH = 8, 8, 0.56  # points of type; a letter's width in its size
_MAX_NAMES = 30  # of a scatter: more find no room
_LEAD = {"arrowstyle": "-", "color": "#AAAAAA", "linewidth": 0.6, "shrinkB": 4}
_PART_STYLES = ("--", ":", "-.")
_CLASS_MARKS = (("Precision", "<", TRAIN_COLOR), ("Recall", ">", VAL_COLOR), ("F1", "o", "#222222"))


def plot_run(
    metrics: Metrics,
    folder: Path,
    *,
    name: str = "",
    rates: tuple[float, Sequence[float]] | None = None,
    kind: str = "svg",
) -> list[Path]:
    """Draw ``loss.svg``, ``top1.svg`` and ``lr.svg`` over epochs, from lines of metrics.jsonl.

    Args:
        name: Of the run, beside each title.
        rates: Steps an epoch, and the learning rate of every step: ``lr.svg`` then shows steps.
        kind: In place of ``svg``: ``png`` or ``pdf``.

    Returns:
        The files, in that order; what has no numbers has no file.
    """
    pictures: list[tuple[str, tuple[str, ...], Callable[[Axes, Metrics], None]]] = [
        ("loss", ("train_loss", "val_loss"), _draw_loss),
        ("top1", ("train_top1", "val_top1"), _draw_top1),
        ("lr", ("lr",), partial(_draw_rates, rates=rates) if rates else _draw_lr),
    ]
    files = []
    for file, keys, draw in pictures:
        if any(_curve(metrics, key)[0] for key in keys):
            with drawing():
                figure = Figure(figsize=(6.4, 3.8))
                axes = figure.subplots()
                draw(axes, metrics)
                axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
                if len(metrics) == 1 and axes.get_xlabel() == "epoch":  # one point has no range of its own
                    axes.set_xlim(0, 2)
                    axes.set_xticks([int(metrics[0]["epoch"])])
                _name_run(axes, name)
                fit(figure, axes)
                files.append(save(figure, folder / f"{file}.{kind}"))
    return files


def _name_run(axes: Axes, name: str) -> None:
    """The run's name opposite the title: pictures are looked at away from their folders."""
    axes.set_title(shorten(plain(name), 48), loc="right", fontsize=8, fontweight="normal", color="#666666")


def _curve(metrics: Metrics, key: str) -> tuple[list[int], list[float]]:
    """Epochs and finite values of one key."""
    points = [
        (int(line["epoch"]), float(line[key]))
        for line in metrics
        if line.get(key) is not None and math.isfinite(line[key])
    ]
    return [epoch for epoch, _ in points], [value for _, value in points]


def _plot(axes: Axes, metrics: Metrics, key: str, *, name: str, color: str, style: str = "-") -> None:
    epochs, values = _curve(metrics, key)
    if epochs:
        marker = "o" if len(epochs) <= 30 else None  # one epoch alone would be invisible
        axes.plot(epochs, values, style, color=color, label=name, marker=marker, markersize=3.5)


def _draw_loss(axes: Axes, metrics: Metrics) -> None:
    parts = list(dict.fromkeys(part for row in metrics for part in loss_parts(row)))  # a term may have ended
    _plot(axes, metrics, "train_loss", name="training", color=TRAIN_COLOR)
    if len(parts) > 1:
        for place, part in enumerate(parts):
            style = _PART_STYLES[place % len(_PART_STYLES)]
            _plot(axes, metrics, f"train_{part}", name=f"training: {part}", color=TRAIN_COLOR, style=style)
    _plot(axes, metrics, "val_loss", name="validation (cross-entropy)", color=VAL_COLOR)
    label(axes, "Loss", x="epoch", y="loss")
    axes.legend()


def _draw_top1(axes: Axes, metrics: Metrics) -> None:
    _plot(axes, metrics, "train_top1", name="training (augmented)", color=TRAIN_COLOR)
    _plot(axes, metrics, "val_top1", name="validation", color=VAL_COLOR)
    epochs, values = _curve(metrics, "val_top1")
    if epochs:
        best = int(np.argmax(values))
        axes.plot(
            [epochs[best]],
            [values[best]],
            "o",
            color=VAL_COLOR,
            markersize=8,
            fillstyle="none",
            label=f"best: {values[best]:.2%} at epoch {epochs[best]}",
        )
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    label(axes, "Top-1 accuracy", x="epoch", y="top-1")
    axes.legend()


def _draw_rates(axes: Axes, _metrics: Metrics, *, rates: tuple[float, Sequence[float]]) -> None:
    steps_per_epoch, values = rates
    every = max(len(values) // 2000, 1)  # no screen shows more points
    axes.plot(range(1, len(values) + 1, every), values[::every], color=TRAIN_COLOR)
    axes.set_ylim(bottom=0)
    label(axes, "Learning rate", x=f"step ({steps_per_epoch:,.0f} an epoch)", y="learning rate (largest of all groups)")


def _draw_lr(axes: Axes, metrics: Metrics) -> None:
    _plot(axes, metrics, "lr", name="", color=TRAIN_COLOR)
    axes.set_ylim(bottom=0)
    label(axes, "Learning rate", x="epoch", y="learning rate (largest of all groups)")


def plot_confusion(confusion: Sequence[Sequence[int]], labels: Sequence[str], path: Path) -> Path:
    """Draw which classes are taken for which: shares of each true class, with counts where there is room."""
    counts = np.asarray(confusion, dtype=np.int64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = float(np.clip(2.6 + 0.42 * len(labels), 4.5, 11))
    with drawing():
        figure = Figure(figsize=(size + 1, size), layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(np.where(shares > 0, shares, np.nan), cmap="cividis", norm=LogNorm(1e-3, 1))
        axes.grid(False)
        _name_classes(axes, labels)
        if len(labels) <= _MAX_NUMBERS:
            _write_counts(axes, counts, shares)
        bar = figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class (log)")
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))
        label(axes, "Confusion", x="predicted class", y="true class")
        return save(figure, path)


def _name_classes(axes: Axes, labels: Sequence[str]) -> None:
    if len(labels) > _MAX_SMALL_LABELS:
        return
    places, labels = range(len(labels)), [shorten(plain(name), 24) for name in labels]
    few = len(labels) <= _MAX_LABELS
    size, angle = (10, 45) if few else (max(4.0, 420 / len(labels) * 0.9), 90)
    axes.set_xticks(places, labels, rotation=angle, ha="right", va="top" if few else "center", rotation_mode="anchor")
    axes.set_yticks(places, labels)
    axes.tick_params(labelsize=size)


def _write_counts(axes: Axes, counts: np.ndarray, shares: np.ndarray) -> None:
    for (row, column), number in np.ndenumerate(counts):
        if number:
            color = "black" if shares[row, column] > 0.05 else "white"
            axes.text(column, row, f"{number:,}", ha="center", va="center", color=color, fontsize=8)


def plot_classes(classes: Sequence[PerClass], path: Path) -> Path:
    """Draw precision, recall and F1 of every class, the worst on top; of many classes the worst forty."""
    shown = sorted(classes, key=lambda each: each.f1)[:_MAX_LABELS]
    places = np.arange(len(shown))[::-1]
    with drawing():
        figure = Figure(figsize=(6.4, 1.6 + 0.27 * len(shown)), layout="constrained")
        axes = figure.subplots()
        for place, each in zip(places, shown, strict=True):
            axes.plot([each.precision, each.recall], [place, place], "-", color="#BBBBBB", linewidth=1, zorder=1)
        for name, marker, color in _CLASS_MARKS:
            values = [getattr(each, name.lower()) for each in shown]
            axes.scatter(values, places, s=34, marker=marker, color=color, label=name, zorder=2)
        axes.set_yticks(places, [shorten(plain(each.label), 24) for each in shown])
        axes.xaxis.set_major_formatter(PercentFormatter(xmax=1))
        left_out = len(classes) - len(shown)
        title = f"The {len(shown)} worst of {len(classes)} classes" if left_out else "Classes, by F1"
        label(axes, title, x="share", y="")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
        return save(figure, path)


def plot_comparison(comparison: Comparison, path: Path) -> Path:
    """Draw test accuracy against size and, where it was measured, against latency; up and left is better.

    Size is parameters, and megabytes where there are exported files: those of one network differ in nothing else. What
    another machine measured is left out: its milliseconds are no point of this axis.
    """
    rows = [row for row in comparison.rows if row.test_top1 is not None and row.measured_on is None]
    has_files = any(row.is_file for row in rows)
    size = ("size, MB", "size_mb") if has_files else ("parameters", "params")
    panels = [(*size, "Accuracy and size")]
    if any(row.latency_b1_ms for row in rows):
        panels.append(("latency of one image, ms (median)", "latency_b1_ms", "Accuracy and speed"))
    spread = ", 95% interval" if any(row.test_top1_low is not None for row in rows) else ""
    with drawing():
        figure = Figure(figsize=(5.4 * len(panels), 4.2), layout="constrained")
        drawn = []
        for axes, (name, column, title) in zip(np.ravel(figure.subplots(1, len(panels))), panels, strict=True):
            drawn.append((axes, _scatter(axes, rows, column)))
            label(axes, title, x=f"{name}, log scale", y=f"test top-1{spread}")
        _role_legend(figure, rows)
        figure.draw_without_rendering()  # now every point has its place
        for axes, points in drawn:
            _name_points(axes, points, pixel=figure.dpi / 72)
        return save(figure, path)


def _scatter(axes: Axes, rows: Sequence[Row], column: str) -> list[tuple[float, Row]]:
    """The points that it drew: the cost, and the row."""
    points = [(float(getattr(row, column)), row) for row in rows if getattr(row, column)]
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=20))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    axes.margins(0.2, 0.2)
    if len({x for x, _ in points}) == 1:  # one place has no range of its own
        axes.set_xlim(points[0][0] / 2, points[0][0] * 2)
    for x, row in points:
        assert row.test_top1 is not None
        look = look_of(row.role)
        axes.errorbar(
            x,
            row.test_top1,
            yerr=_interval(row),
            fmt=look.marker,
            color=look.color,
            markersize=7,
            markerfacecolor="white" if row.is_file else look.color,
            capsize=3,
        )
    return points


def _interval(row: Row) -> np.ndarray | None:
    """How far the bounds are below and above the estimate, ``(2, 1)``."""
    if row.test_top1 is None or row.test_top1_low is None or row.test_top1_high is None:
        return None
    return np.maximum([[row.test_top1 - row.test_top1_low], [row.test_top1_high - row.test_top1]], 0.0)


def _name_points(axes: Axes, points: Sequence[tuple[float, Row]], *, pixel: float) -> None:
    """Name each point where there is room, in a figure that is otherwise whole.

    Args:
        pixel: How many are a point of type.
    """
    if len(points) > _MAX_NAMES:
        return
    names = Counter(row.name for _, row in points)
    texts = [plain(row.name if names[row.name] == 1 else f"{row.name} {Path(row.run).name}") for _, row in points]
    to_pixels = axes.transData.transform
    at = [(float(x), float(y)) for x, y in (to_pixels((x, row.test_top1 or 0.0)) for x, row in points)]
    bounds = [(x, row.test_top1_low, row.test_top1_high) for x, row in points]
    bars = [
        None if low is None or high is None else (float(to_pixels((x, low))[1]), float(to_pixels((x, high))[1]))
        for x, low, high in bounds
    ]
    marks = marks_of(at, bars, radius=4 * pixel, width=6 * pixel)
    frame = axes.get_window_extent()
    area = Box(float(frame.x0), float(frame.x1), float(frame.y0), float(frame.y1))
    widths = [_LETTER_WIDTH * _NAME_SIZE * pixel * len(text) for text in texts]
    places = beside(at, widths, height=1.3 * _NAME_SIZE * pixel, gap=_NAME_GAP * pixel, area=area, marks=marks)
    for (x, row), (_, y), text, place in zip(points, at, texts, places, strict=True):
        is_moved = abs(place.y - y) > 0.6 * _NAME_SIZE * pixel
        name = axes.annotate(
            text,
            (x, row.test_top1 or 0.0),
            xytext=(_NAME_GAP * place.side, (place.y - y) / pixel),
            textcoords="offset points",
            ha="left" if place.side > 0 else "right",
            va="center",
            fontsize=_NAME_SIZE,
            arrowprops=_LEAD | {"relpos": (0.0 if place.side > 0 else 1.0, 0.5)} if is_moved else None,
        )
        name.set_in_layout(False)  # else the plot would give way, and all names be in the wrong place


def _role_legend(figure: Figure, rows: Sequence[Row]) -> None:
    roles = sorted({row.role for row in rows}, key=role_order)
    looks = {role: look_of(role) for role in roles}
    handles = [
        Line2D([], [], linestyle="", marker=look.marker, color=look.color, label=role) for role, look in looks.items()
    ]
    if any(row.is_file for row in rows):
        handles.append(
            Line2D([], [], linestyle="", marker="o", color="#444444", markerfacecolor="white", label="exported file")
        )
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
