"""What the headline's runs came to: the short table, and distilled minus scratch with its confidence interval."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy import stats

from benchmarks.headline.runs import find_run
from benchmarks.headline.tasks import Task
from distill.files import read_json
from distill.results.rows import Comparison
from distill.runs import RunFolder

__all__ = ["Gain", "gain", "print_choices", "print_table", "test_top1"]


@dataclass(frozen=True)
class Gain:
    """Test top-1 of a taught network minus that of the same network with labels alone, in fractions.

    Attributes:
        interval: 95%, Welch's: the two may vary differently; None with fewer than two seeds of either.
    """

    taught: str
    alone: str
    seeds: tuple[int, int]
    difference: float
    interval: tuple[float, float] | None


def gain(taught: str, alone: str, first: Sequence[float], second: Sequence[float]) -> Gain:
    """The difference of the means of two sets of independent seeds."""
    interval = None
    if min(len(first), len(second)) > 1:
        found = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
        interval = (float(found.low), float(found.high))
    difference = statistics.mean(first) - statistics.mean(second)
    return Gain(taught, alone, (len(first), len(second)), difference, interval)


def test_top1(run: Path) -> float:
    """A run's top-1 on the test set, as it was stored when it was read."""
    return read_json(run / "evaluation" / "test.json")["result"]["top1"]


def print_table(found: Comparison, runs_dir: Path, gains: Sequence[Gain]) -> None:
    """Name, n, accuracy in percent, size, latency, seconds of training; then the gains."""
    print(f"on {found.device}")
    print(f"{'name':32s} {'n':>2s} {'test top-1 %':>15s} {'params':>12s} {'ms/image':>9s} {'train s':>8s}")
    for row in found.rows:
        spread = "" if row.test_top1_std is None else f" +- {100 * row.test_top1_std:.2f}"
        latency = "" if row.latency_b1_ms is None else f"{row.latency_b1_ms:.3f}"
        accuracy = "" if row.test_top1 is None else f"{100 * row.test_top1:.2f}{spread}"
        seconds = _training_seconds(runs_dir / row.name)
        print(f"{row.name:32s} {row.seeds:2d} {accuracy:>15s} {row.params:12,d} {latency:>9s} {seconds:8.1f}")
    for each in gains:
        low_high = "" if each.interval is None else f" [{100 * each.interval[0]:+.2f}, {100 * each.interval[1]:+.2f}]"
        print(f"{each.taught} minus {each.alone}: {100 * each.difference:+.2f} points{low_high}, n = {each.seeds}")


def print_choices(tasks: Sequence[Task], runs_dir: Path) -> None:
    """What each variant reached on the validation images in its last epoch."""
    for task in tasks:
        run = find_run(task, runs_dir)
        if run is not None and run.status == "finished":
            last = run.metrics()[-1]
            print(f"{task.name:32s} val top-1 {100 * last['val_top1']:.2f}, val loss {last['val_loss']:.4f}")


def _training_seconds(folder: Path) -> float:
    found = [RunFolder(path).result()["seconds"] for path in folder.glob("[0-9]*") if (path / "result.json").exists()]
    return statistics.mean(found) if found else float("nan")
