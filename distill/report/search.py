"""A search by budget as tables and sentences. Accuracies are fractions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from distill.report.layout import Column, key_values, stacked
from distill.results.search import SearchReport
from distill.text import MISSING, count, counted, fixed, percent

__all__ = ["search_table"]

_MAX_ROWS = 20
_LATENCIES = (("latency_b1_ms", "batch 1\nms"), ("latency_b32_ms", "batch 32\nms"))


def search_table(report: SearchReport, width: int) -> RenderableType:
    """The finalists, what was tried, what a budget buys where it was not enough, the verdict, and the files."""
    parts: list[RenderableType] = []
    if report.finalists:
        parts += [_finalists(report, width), Text()]
    if report.tried:
        parts += [_tried(report, width), Text()]
    if report.prices:
        parts += [_prices(report, width), Text()]
    return Group(*parts, key_values(_ending(report)))


def _finalists(report: SearchReport, width: int) -> RenderableType:
    rows = report.finalists
    columns = [
        Column("finalist", [", ".join(row.kinds) for row in rows], words=True, style="bold"),
        Column("shape", [row.shape for row in rows], words=True),
        *_costs([row.costs for row in rows]),
        Column("of the\nbudget", [percent(row.share, 0) + "%" for row in rows]),
        Column("val top-1, %", [_mean(row.val_top1, row.val_top1_std) for row in rows]),
        Column("test top-1, %", [_mean(row.test_top1, row.test_top1_std) for row in rows]),
        Column("n", [count(row.seeds) for row in rows]),
        Column("", ["taken" if row.chosen else "" for row in rows], words=True),
    ]
    return stacked(columns, width, row_styles=["green" if row.chosen else "" for row in rows])


def _mean(mean: float, std: float | None) -> str:
    return percent(mean) + ("" if std is None else f" ± {percent(std)}")


def _costs(costs: Sequence[Mapping[str, float | None]]) -> list[Column]:
    columns = [
        Column("params", [count(each["params"]) for each in costs]),
        Column("GMACs", [fixed(each["gmacs"], 4) for each in costs]),
        Column("size\nMB", [fixed(each["size_mb"], 3) for each in costs]),
    ]
    for name, head in _LATENCIES:
        columns.append(Column(head, [fixed(each[name], 3) for each in costs]))
    return columns


def _tried(report: SearchReport, width: int) -> RenderableType:
    rows = report.tried[:_MAX_ROWS]
    columns = [
        Column("tried", [row.origin for row in rows], words=True, style="bold"),
        Column("shape", [row.shape for row in rows], words=True),
        Column("of the\nbudget", [percent(row.share, 0) + "%" for row in rows]),
        Column("epochs", [count(row.epochs) for row in rows]),
        Column("val top-1\n%", [percent(row.val_top1) for row in rows]),
        Column("KL to the\nteacher", [fixed(row.kl, 4) for row in rows]),
    ]
    left = len(report.tried) - len(rows)
    more = [Text(f"and {left} more: {report.folder}/result.json")] if left else []
    return Group(stacked(columns, width), *more)


def _prices(report: SearchReport, width: int) -> RenderableType:
    rows = report.prices
    unit = "ms" if "latency" in (report.priced or "") else report.priced or ""
    columns = [
        Column("the recipe's own proportions", [row.shape for row in rows], words=True),
        Column(report.priced or "", [f"{row.value:.4g}" for row in rows]),
        Column("val top-1\n%", [percent(row.val_top1) for row in rows]),
        Column(
            f"points for\none {unit} more",
            [MISSING if row.gain_per_unit is None else f"{row.gain_per_unit:+.3g}" for row in rows],
        ),
    ]
    return stacked(columns, width)


def _ending(report: SearchReport) -> list[tuple[str, str]]:
    budgets = ", ".join(f"{name} <= {limit:g}" for name, limit in report.budgets.items())
    noise = "" if report.noise is None else f"; two timings of one network differed by {percent(report.noise, 1)}%"
    threads = counted(report.threads, "thread")
    pairs = [("budget", f"{budgets}; {report.runtime}, {threads}, {report.machine}{noise}")]
    if report.search_epochs:
        trained = f"{report.search_epochs} epochs for the search, {report.random_epochs} for random search"
        pairs.append(("trained", f"{trained} (what both try is trained once), and the finalists' other seeds"))
    pairs += [("search" if place == 0 else "", line) for place, line in enumerate(report.advice)]
    if report.cut:
        pairs.append(("cut", report.cut))
    if report.drop_words:
        pairs.append(("val", f"against {report.reference}, the file {report.drop_words}"))
    if report.missed:
        pairs.append(("missed", report.missed))
    if report.ways:
        nearest = " and ".join(text for _, text in report.ways)
        how = ": by the last slope, not measured" if report.finalists and report.prices else ""
        pairs.append(("would do", f"about {nearest}{how}" if how else nearest))
    files = {"file": report.file, "recipe": report.best_recipe, "certificate": report.certificate}
    pairs += [(name, place) for name, place in (files | {"picture": report.plot}).items() if place]
    return pairs
