"""How long the rest of the queue takes, from what it measured so far."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median
from typing import Any

from benchmarks.measure.document import Results
from benchmarks.measure.plan import Item

__all__ = ["seconds_left"]


def seconds_left(todo: Iterable[tuple[Item, float]], results: Results) -> tuple[float, list[Item]]:
    """Wall-clock seconds of the runs that are left, and those of which nothing can be said.

    A recipe that was measured takes what its runs took (the median); another one is taken by its multiply-accumulates,
    at the speed of the runs that there are. That is rough: small networks are slower by the operation.

    Args:
        todo: Runs, each with the billions of multiply-accumulates of all its training images, forward.
    """
    own: dict[str, list[float]] = {}
    speeds = []
    for record in results.values():
        own.setdefault(record["recipe"], []).append(record["seconds"])
        speeds.append(record["seconds"] / _work(record))
    total, unknown = 0.0, []
    for item, work in todo:
        if item.recipe in own:
            total += median(own[item.recipe])
        elif speeds:
            total += work * median(speeds)
        else:
            unknown.append(item)
    return total, unknown


def _work(record: dict[str, Any]) -> float:
    images = record["train_images"] + record.get("unlabelled_images", 0)
    return float(record["gmacs"] * images * record["epochs"])
