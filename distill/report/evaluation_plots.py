"""Pictures of one evaluation, and of several side by side: reliability, risk against coverage, corruptions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from distill.evaluation.statistics import share_interval
from distill.report.figure import TRAIN_COLOR, VAL_COLOR, drawing, label, save
from distill.report.plots import plot_classes, plot_confusion
from distill.results.calibration import Reliability, RiskCoverage
from distill.results.corruptions import CORRUPTION_NAMES, CORRUPTIONS, SEVERITIES, CorruptionResult
from distill.results.evaluations import Evaluation
from distill.text import plain, shorten

__all__ = ["draw_evaluation", "plot_corruptions", "plot_reliability", "plot_risk_coverage"]

# Okabe and Ito's again, and signs besides: lines are told apart in grey too.
_COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_SIGNS = ("s", "o", "^", "D", "v", "P", "X")


def draw_evaluation(folder: Path, evaluation: Evaluation) -> list[Path]:
    """Draw all that was measured into an ``evaluation`` folder; the names end in the split's."""
    split, result = evaluation.split, evaluation.result
    labels = [each.label for each in result.per_class]
    files = [
        plot_confusion(result.confusion, labels, folder / f"confusion_{split}.svg"),
        plot_classes(result.per_class, folder / f"classes_{split}.svg"),
    ]
    if evaluation.reliability is not None:
        temperature = None if evaluation.temperature is None else evaluation.temperature.value
        files.append(
            plot_reliability(
                evaluation.reliability,
                folder / f"reliability_{split}.svg",
                calibrated=evaluation.calibrated,
                temperature=temperature,
            )
        )
    if evaluation.risk_coverage is not None:
        files.append(plot_risk_coverage(evaluation.risk_coverage, folder / f"risk_coverage_{split}.svg"))
    if evaluation.corruptions is not None:
        drawn = [("", evaluation.corruptions)]
        files.append(plot_corruptions(drawn, folder / f"corruptions_{split}.svg", split=split))
    return files


def plot_reliability(
    found: Reliability, path: Path, *, calibrated: Reliability | None = None, temperature: float | None = None
) -> Path:
    """Draw accuracy against confidence with each bin's 95% interval, and how many images have which confidence.

    Args:
        calibrated: The same with logits divided by ``temperature``.
    """
    drawn = [("as trained" if calibrated else "", found, TRAIN_COLOR, "o")]
    if calibrated is not None:
        drawn.append((f"temperature {temperature:.3g}", calibrated, VAL_COLOR, "D"))
    with drawing():
        figure = Figure(figsize=(5.2, 6.4), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        above.plot([0, 1], [0, 1], "--", color="#888888", linewidth=1, label="confidence is accuracy")
        for place, (name, each, color, sign) in enumerate(drawn):
            text = ", ".join(part for part in (name, f"ECE {each.ece:.2%}") if part)
            _bins(above, each, text, color, sign)
            _histogram(below, each, color, filled=place == 0)
        above.set_xlim(0, 1)
        above.set_ylim(-0.02, 1.02)
        label(above, "Reliability", x="", y="accuracy")
        label(below, "", x="confidence", y="images")
        for axis in (above.yaxis, below.yaxis, below.xaxis):
            axis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
        figure.legend(*above.get_legend_handles_labels(), loc="outside lower center")
        return save(figure, path)


def _bins(axes: Axes, found: Reliability, name: str, color: str, sign: str) -> None:
    filled = [(each, share_interval(round((each.accuracy or 0.0) * each.n), each.n)) for each in found.bins if each.n]
    x, y = [each.confidence or 0.0 for each, _ in filled], [each.accuracy or 0.0 for each, _ in filled]
    spread = [
        [max((each.accuracy or 0.0) - interval.low, 0.0) for each, interval in filled],
        [max(interval.high - (each.accuracy or 0.0), 0.0) for each, interval in filled],
    ]
    axes.errorbar(x, y, yerr=spread, fmt=sign, color=color, label=name, markersize=4.5, elinewidth=0.8)


def _histogram(axes: Axes, found: Reliability, color: str, *, filled: bool) -> None:
    edges, shares = [found.bins[0].low, *(each.high for each in found.bins)], [each.n / found.n for each in found.bins]
    axes.stairs(shares, edges, fill=filled, color=color, alpha=0.45 if filled else 1.0, linewidth=1.6)


def plot_risk_coverage(found: RiskCoverage, path: Path) -> Path:
    """Draw the share of errors among the images that are answered, the surest first."""
    with drawing():
        figure = Figure(figsize=(5.8, 4.6), layout="constrained")
        axes = figure.subplots()
        axes.plot(found.coverage, found.risk, color=TRAIN_COLOR, label=f"the surest first: AURC {found.aurc:.4f}")
        axes.axhline(found.risk[-1], linestyle="--", color="#888888", linewidth=1, label="in no order")
        for most, coverage in ((0.05, found.coverage_at_risk_5), (0.01, found.coverage_at_risk_1)):
            if 0 < coverage < 1:
                name = f"{coverage:.0%} answered with at most {most:.0%} errors"
                axes.plot(
                    [coverage], [most], "o", color=VAL_COLOR, fillstyle="full" if most == 0.01 else "none", label=name
                )
        axes.set_xlim(0, 1)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
        label(
            axes, "Risk against coverage", x="coverage: share of images that are answered", y="risk: errors among them"
        )
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center")
        return save(figure, path)


def plot_corruptions(
    results: Sequence[tuple[str, CorruptionResult | None]], path: Path, *, split: str = "test"
) -> Path:
    """Draw top-1 against severity, one panel a corruption and one line a model, with 95% bands for up to three.

    Args:
        results: Names (one model alone may have none) and what was measured; None is left out.
    """
    shown = [(name, result) for name, result in results if result is not None]
    with drawing():
        figure = Figure(figsize=(9.2, 5.6), layout="constrained")
        panels = figure.subplots(2, 3, sharex=True, sharey=True)
        for axes, corruption in zip(panels.flat, CORRUPTIONS, strict=True):
            for place, (_, result) in enumerate(shown):
                _severities(axes, result, corruption, place, banded=len(shown) <= 3)
            title = CORRUPTION_NAMES[corruption]
            axes.set_title(title[0].upper() + title[1:])
            axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        for axes in panels[1]:
            axes.set_xlabel("severity (0: as it is)")
        for axes in panels[:, 0]:
            axes.set_ylabel("top-1")
        panels[0, 0].set_ylim(0, 1.02)
        sizes = " or ".join(f"{n:,}" for n in sorted({result.n for _, result in shown}))
        figure.suptitle(f"Under corruptions: {sizes} images, {split}", x=0.01, ha="left", fontweight="bold")
        handles = [
            Line2D([], [], color=color, marker=sign, linestyle=style, label=_name(name, result))
            for place, (name, result) in enumerate(shown)
            for color, sign, style in [_look(place)]
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=1 if len(shown) <= 4 else 2)
        return save(figure, path)


def _look(place: int) -> tuple[str, str, Literal["-", "--"]]:
    return _COLORS[place % len(_COLORS)], _SIGNS[place % len(_SIGNS)], "-" if place < len(_COLORS) else "--"


def _name(name: str, result: CorruptionResult) -> str:
    found = f"clean {result.clean_top1:.1%}, mean under corruptions {result.mean_top1:.1%}"
    return f"{shorten(plain(name), 30)}: {found}" if name else found


def _severities(axes: Axes, result: CorruptionResult, corruption: str, place: int, *, banded: bool) -> None:
    color, sign, style = _look(place)
    axes.plot((0, *SEVERITIES), result.curve(corruption), sign + style, color=color, markersize=4)
    if banded:
        clean = share_interval(round(result.clean_top1 * result.n), result.n)
        cells = [cell for cell in result.cells if cell.corruption == corruption]
        low, high = [clean.low, *(cell.low for cell in cells)], [clean.high, *(cell.high for cell in cells)]
        axes.fill_between((0, *SEVERITIES), low, high, color=color, alpha=0.12, linewidth=0)
