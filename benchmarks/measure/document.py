"""What was measured, as a document, and the page that is made from it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from benchmarks.measure.plan import GAINS, Gain, Item
from distill.evaluation.statistics import LEVEL, Interval, mean_interval

__all__ = [
    "Results",
    "accuracies",
    "bounds",
    "cpu_minutes",
    "differences_of",
    "few_labels",
    "final_interval",
    "names",
    "read_results",
    "render",
]

Results = dict[Item, dict[str, Any]]


def read_results(*paths: Path) -> Results:
    """The records of documents and of single runs; a later path's stands before an earlier one's."""
    found: Results = {}
    for path in paths:
        if path.is_file():
            tree = json.loads(path.read_text())
            for record in tree.get("results", [tree]):
                found[Item(record["recipe"], record["seed"])] = record
    return found


_HEAD = """# Measured on real CIFAR

Official files, the recipes as they ship; the test set was read once for each run, without test-time augmentation.
Accuracies are test top-1 in percent: mean ± standard deviation over n seeds (95% interval of the mean, Student's t).
CPU-minutes are those of training, of all processes of a run, the median over seeds: a bank, which the first taught
seed of a recipe builds, is in that seed's alone. Made by
`python -m benchmarks.measure`; every run, with its commit, is in [cifar.json](cifar.json). What the queue has not
reached is not here.

![test accuracy of distill's own recipes, and what being taught gains](cifar.svg)

The picture leaves out recipes that follow other people's protocols (`r222_*`, `resnet9_*`, `lenet_*`, `cnn_*`), but for
what being taught gains.
"""


_TWO_LOOKS = 1 - (1 - LEVEL) / 2  # Bonferroni
_FEW = 25_000  # half of CIFAR's training images
_DATA = {"folder": "cifar10, as class folders"}


def render(results: Results) -> str:
    """The page."""
    lines = [_HEAD, _ROW_NAMES, "|---|---|---|---|---|---|---|---|"]
    groups: dict[str, list[dict[str, Any]]] = {}
    for item in sorted(results):
        groups.setdefault(item.recipe, []).append(results[item])
    ordered = sorted(groups.items(), key=lambda pair: (pair[1][0]["dataset"], -accuracies(pair[1])[0]))
    marks = dict(zip(sorted({_machine(record) for record in results.values()}), ascii_uppercase, strict=False))
    lines += [_row(name, records, marks) for name, records in ordered]
    gains = [line for gain in GAINS if (line := _gain(results, gain)) is not None]
    if gains:
        lines += ["", "What being taught gives, paired by seed:", "", *gains]
    hardware = "; ".join(f"{mark}: {machine}" for machine, mark in marks.items())
    commits = sorted({(record["git"] or {}).get("commit", "unknown")[:10] for record in results.values()})
    lines += ["", f"Hardware: {hardware}. Commits: {', '.join(commits)}."]
    return "\n".join(lines) + "\n"


_ROW_NAMES = (
    "| recipe | data | n | test top-1 | parameters | GMACs | epochs, precision | CPU-minutes, threads, hardware |"
)


def _row(name: str, records: list[dict[str, Any]], marks: dict[str, str]) -> str:
    first = records[0]
    spent = cpu_minutes(records)
    minutes = "not known" if spent is None else f"{spent:.0f}"
    on = "".join(sorted({marks[_machine(record)] for record in records}))
    few = few_labels(first)
    data = _DATA.get(first["dataset"], first["dataset"]) + (f", {few:,} labels" if few else "")
    cells = [f"`{name}`", data, str(len(records)), _accuracy(records)]
    cells += [f"{first['params']:,}", f"{first['gmacs']:.3f} at {first['input_size']}"]
    cells += [f"{first['epochs']}, {first['precision']}", f"{minutes}, {first['threads']}, {on}"]
    return f"| {' | '.join(cells)} |"


def few_labels(record: Mapping[str, Any]) -> int | None:
    """How many training images had a label, where most had none or were left out."""
    count: int | None = record["train_images"]
    return count if count is not None and count < _FEW else None


def cpu_minutes(records: Sequence[Mapping[str, Any]]) -> float | None:
    """The median over seeds; None where none was counted."""
    spent = [record["cpu_s"] for record in records if record["cpu_s"] is not None]
    return statistics.median(spent) / 60 if spent else None


def accuracies(records: Sequence[Mapping[str, Any]]) -> tuple[float, float | None]:
    """Test top-1: mean and standard deviation over seeds; of one, None."""
    values = [record["test_top1"] for record in records]
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def _accuracy(records: Sequence[Mapping[str, Any]]) -> str:
    mean, spread = accuracies(records)
    interval = mean_interval([record["test_top1"] for record in records])
    if interval is None or spread is None:
        return f"{100 * mean:.2f}"
    return f"{100 * mean:.2f} ± {100 * spread:.2f} ({100 * interval.low:.2f} to {100 * interval.high:.2f})"


def differences_of(results: Results, gain: Gain) -> list[float]:
    """Taught minus alone, of the seeds that both have."""
    taught = [item for item in sorted(results) if item.recipe == gain.taught]
    pairs = [(item, Item(gain.alone, item.seed)) for item in taught if Item(gain.alone, item.seed) in results]
    return [results[one]["test_top1"] - results[other]["test_top1"] for one, other in pairs]


def final_interval(differences: list[float], gain: Gain) -> Interval | None:
    """With 95%, or, where there were two looks, with 97.5%; None before two seeds have both."""
    return mean_interval(differences, level=_TWO_LOOKS if _is_second_look(differences, gain) else LEVEL)


def _gain(results: Results, gain: Gain) -> str | None:
    """A line with the paired difference; None before two seeds have both."""
    differences = differences_of(results, gain)
    interval = mean_interval(differences)
    if interval is None:
        return None
    line = f"- `{gain.taught}` over `{gain.alone}`: {_points(interval)}, n = {len(differences)}; {_verdict(interval)}"
    return line + _second_look(differences, gain)


def _second_look(differences: list[float], gain: Gain) -> str:
    """What the first look showed, and the interval that allows for two (Bonferroni); empty where there was one."""
    before, widened = mean_interval(differences[: gain.looked_after]), final_interval(differences, gain)
    if before is None or widened is None or not _is_second_look(differences, gain):
        return ""
    return (
        f". It was looked at after {gain.looked_after} seeds, too: {_points(before)}; the interval that allows for two "
        f"looks (97.5%) is {bounds(widened)}"
    )


def _is_second_look(differences: list[float], gain: Gain) -> bool:
    return gain.looked_after is not None and len(differences) > gain.looked_after


def _points(interval: Interval) -> str:
    return f"{100 * interval.estimate:+.2f} points (95% interval {bounds(interval)})"


def bounds(interval: Interval) -> str:
    """In points: ``+0.41 to +1.51``."""
    return f"{100 * interval.low:+.2f} to {100 * interval.high:+.2f}"


def _verdict(interval: Interval) -> str:
    return "the interval excludes zero" if interval.low > 0 or interval.high < 0 else "the interval holds zero"


def _machine(record: dict[str, Any]) -> str:
    cpu: dict[str, Any] = record["cpu"]
    cap = f", oneDNN capped to {cpu['onednn_max_cpu_isa']}" if "onednn_max_cpu_isa" in cpu else ""
    return f"{cpu['name']} ({cpu['capability']}, bf16 {'native' if cpu['bf16'] else 'emulated'}{cap})"


def names(items: Iterable[Item]) -> str:
    """Several runs in one line."""
    return ", ".join(map(str, items))
