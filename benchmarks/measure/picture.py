"""What was measured, as a picture: how far each recipe gets, and what being taught gains."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from benchmarks.measure.document import (
    Results,
    accuracies,
    bounds,
    cpu_minutes,
    differences_of,
    few_labels,
    final_interval,
)
from benchmarks.measure.plan import GAINS
from distill.evaluation.statistics import Interval
from distill.report.figure import drawing, label, save
from distill.results.roles import look_of, role_order

__all__ = ["draw_measured"]

# The recipes that are distill's own: the others follow protocols of other people, as the page says.
_FAMILIES = ("fast", "few", "lite0", "lite2")
_DATA = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
_SAID = {"baseline": "from labels alone", "student": "taught"}
_ROW = 0.27  # inches

Row = tuple[str, Interval, int]  # recipe, taught minus alone, seeds


def draw_measured(results: Results, path: Path) -> Path | None:
    """Test accuracy of distill's own recipes, mean and standard deviation over seeds, and all gains, paired by seed.

    None where there is nothing to draw.
    """
    groups = _groups(results)
    gains = _gains(results)
    rows = [len(recipes) for recipes in groups.values()] + ([len(gains)] if gains else [])
    if not rows:
        return None
    with drawing():
        figure = Figure(figsize=(8.4, 0.85 * len(rows) + _ROW * sum(rows) + 0.3), layout="constrained")
        panels = list(figure.subplots(len(rows), 1, squeeze=False, height_ratios=[count + 1 for count in rows])[:, 0])
        for axes, (title, recipes) in zip(panels, groups.items(), strict=False):
            _ladder(axes, recipes)
            label(axes, title, x="test top-1, mean ± standard deviation over n seeds", y="")
        if gains:
            _forest(panels[-1], gains)
            label(
                panels[-1],
                "What being taught gains",
                x="points of test top-1, paired by seed; 95% interval, wider where seeds were looked at twice",
                y="",
            )
        drawn = {record["role"] for recipes in groups.values() for records in recipes.values() for record in records}
        _legend(figure, drawn | ({"student"} if gains else set()))
        return save(figure, path)


def _groups(results: Results) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Records by the title of their panel, and by recipe."""
    groups: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for item in sorted(results):
        record = results[item]
        if item.recipe.split("_")[0] in _FAMILIES and record["dataset"] in _DATA:
            few = few_labels(record)
            labels = f"{few:,} labels; taught: and the other images, without theirs" if few else "all 50,000 labels"
            title = f"{_DATA[record['dataset']]}: {labels}"
            groups.setdefault(title, {}).setdefault(item.recipe, []).append(record)
    return groups


def _gains(results: Results) -> list[Row]:
    found = []
    for gain in GAINS:
        differences = differences_of(results, gain)
        interval = final_interval(differences, gain)
        if interval is not None:
            found.append((gain.taught, interval, len(differences)))
    return sorted(found, key=lambda row: row[1].estimate)


def _ladder(axes: Axes, recipes: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    found = {name: accuracies(records) for name, records in recipes.items()}
    ordered = sorted(recipes, key=lambda name: found[name][0])
    for place, name in enumerate(ordered):
        mean, spread = found[name]
        look = look_of(recipes[name][0]["role"])
        axes.errorbar(mean, place, xerr=spread, fmt=look.marker, color=look.color, markersize=6, capsize=3)
    _sides(axes, ordered, [_cost(recipes[name]) for name in ordered])
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))


def _forest(axes: Axes, gains: Sequence[Row]) -> None:
    look = look_of("student")
    axes.axvline(0, color="#222222", linewidth=0.9)
    for place, (_, gain, _) in enumerate(gains):
        below, above = gain.estimate - gain.low, gain.high - gain.estimate
        error = [[100 * below], [100 * above]]
        axes.errorbar(
            100 * gain.estimate, place, xerr=error, fmt=look.marker, color=look.color, markersize=6, capsize=3
        )
    said = [f"{100 * gain.estimate:+.2f} ({bounds(gain)}), n = {n}" for _, gain, n in gains]
    _sides(axes, [name for name, _, _ in gains], said)


def _sides(axes: Axes, names: Sequence[str], beside: Sequence[str]) -> None:
    """Rows with their names on the left, and what is said of them on the right."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.7, len(names) - 0.3)
    axes.margins(x=0.04)
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(len(names)), beside)
    right.tick_params(length=0)
    right.spines["right"].set_visible(False)


def _cost(records: Sequence[Mapping[str, Any]]) -> str:
    minutes = cpu_minutes(records)
    time = "time not known" if minutes is None else f"{minutes:.0f} CPU-min"
    return f"{records[0]['params'] / 1e6:.2f}M params, {time}, n = {len(records)}"


def _legend(figure: Figure, drawn: Collection[str]) -> None:
    roles = sorted(drawn, key=role_order)
    handles = [
        Line2D(
            [], [], linestyle="", marker=look_of(role).marker, color=look_of(role).color, label=_SAID.get(role, role)
        )
        for role in roles
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
