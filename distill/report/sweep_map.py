"""A grid of two keys as a map: the mean validation accuracy of every pair of values."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from distill.results.sweeps import SweepReport, TrialRow, shown_value

__all__ = ["SweepMap", "map_of"]

_MOST = 12  # values a side: more are no map that one reads


@dataclass(frozen=True)
class SweepMap:
    """Mean validation top-1, a fraction, by the values of two keys; None where no trial of a pair is finished.

    Attributes:
        keys: The key of the rows, and that of the columns.
        values: Of each, as they are shown, in their order.
        means: One list a row.
    """

    keys: tuple[str, str]
    values: tuple[tuple[str, ...], tuple[str, ...]]
    means: tuple[tuple[float | None, ...], ...]

    @property
    def best(self) -> float | None:
        """The highest mean."""
        return max((mean for row in self.means for mean in row if mean is not None), default=None)


def map_of(report: SweepReport) -> SweepMap | None:
    """The map of a grid in which two keys vary; None for any other sweep, and for one that is too large to read."""
    if report.kind != "grid":
        return None
    keys = list(dict.fromkeys(key for row in report.trials for key in row.params))
    values = {key: _values(report.trials, key) for key in keys}
    varied = [key for key in keys if len(values[key]) > 1]
    if len(varied) != 2 or max(len(values[key]) for key in varied) > _MOST:
        return None
    down, across = varied
    means = tuple(
        tuple(_mean(report.trials, {down: one, across: other}) for other in values[across]) for one in values[down]
    )
    shown = [_shown(values[key]) for key in varied]
    found = SweepMap((down, across), (shown[0], shown[1]), means)
    return None if found.best is None else found


def _values(rows: Sequence[TrialRow], key: str) -> dict[str, Any]:
    """What a key was set to, by what tells values apart: numbers ascend, the rest stands as it came."""
    values: list[Any] = [row.params.get(key) for row in rows]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        values = sorted(values)
    return {_exact(value): value for value in values}


def _shown(values: dict[str, Any]) -> tuple[str, ...]:
    """As a table shows them; with all their digits where two would look the same."""
    short = tuple(shown_value(value) for value in values.values())
    return short if len(set(short)) == len(short) else tuple(values)


def _exact(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _mean(rows: Sequence[TrialRow], where: dict[str, str]) -> float | None:
    tops = [
        row.val_top1
        for row in rows
        if row.status == "finished"
        and row.val_top1 is not None
        and all(_exact(row.params.get(key)) == value for key, value in where.items())
    ]
    return statistics.fmean(tops) if tops else None
