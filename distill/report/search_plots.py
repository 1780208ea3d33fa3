"""The picture of a search: validation accuracy against what the budget is in, finalists and all that was tried."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from distill.report.figure import TRAIN_COLOR, VAL_COLOR, drawing, label, save
from distill.results.search import SearchReport

__all__ = ["plot_search"]

_MARKS: Mapping[str, tuple[str, str]] = {  # of finalists: marker and colour
    "search": ("o", VAL_COLOR),
    "uniform": ("s", TRAIN_COLOR),
    "random": ("^", "#009E73"),
}
_PALE = "#B5B5B5"


def plot_search(report: SearchReport, path: Path) -> Path | None:
    """Draw one panel for each budget; up and left is better.

    Returns:
        ``path``; None where nothing was trained.
    """
    if not report.finalists:
        return None
    with drawing():
        figure = Figure(figsize=(1.0 + 4.4 * len(report.budgets), 4.4), layout="constrained")
        panels = figure.subplots(1, len(report.budgets), squeeze=False, sharey=True).ravel()
        for axes, (name, limit) in zip(panels, report.budgets.items(), strict=True):
            _panel(axes, report, name, limit)
        handles = {
            text: handle for axes in panels for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=min(3, 1 + len(report.budgets))
        )
        return save(figure, path)


def _panel(axes: Axes, report: SearchReport, name: str, limit: float) -> None:
    whole = max((row.epochs for row in report.tried), default=0)
    for row in report.tried:
        value = row.costs[name]
        if row.val_top1 is not None and value is not None:
            text = "tried, to the end" if row.epochs == whole else "tried, not to the end"
            face = _PALE if row.epochs == whole else "white"
            axes.plot([value], [row.val_top1], "o", color=_PALE, markerfacecolor=face, markersize=4, label=text)
    for final in report.finalists:
        value = final.costs[name]
        for kind in final.kinds:
            marker, color = _MARKS[kind]
            axes.errorbar(
                [value or 0.0], [final.val_top1], yerr=final.val_top1_std, fmt=marker, color=color, markersize=8,
                capsize=3, markerfacecolor=color if kind == final.kinds[0] else "none",
                label=f"{kind}: mean ± std of {final.seeds}",
            )  # fmt: skip
    axes.axvline(limit, color="#444444", linestyle="--", linewidth=1, label="budget")
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    label(axes, "Within the budget", x=name, y="validation top-1")
