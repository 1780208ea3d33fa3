"""What training costs as the work grows: images, epochs, students of one teacher, and the size of the data set.

``python -m benchmarks.scaling [--json] [--out DIR] [--repeats 3]``

ResNet-20 learns from ResNet-56, in batches of 128, on one CPU thread, through the job and the loop of
``distill student``. Costs are CPU seconds, each the least of several repeats; the points of all curves take turns.
"""

from __future__ import annotations

import os

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # read once, when torch is imported
os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from benchmarks.augment import environment
from benchmarks.peers.contestant import Meter
from benchmarks.peers.ours import Ours, prepare_process
from benchmarks.peers.setting import Setting
from distill.data.batches import Loader
from distill.data.images import Split
from distill.data.views import epoch_order, epoch_view
from distill.report.figure import TRAIN_COLOR, VAL_COLOR, drawing, label, save

CPU = torch.device("cpu")
BATCH = 128
NEAR = 0.1  # how far from 1 an exponent may be and still be called near-linear


@dataclass(frozen=True)
class Point:
    """One amount of work on a curve, and how to do it."""

    curve: str
    work: int
    run: Callable[[], None]


@dataclass(frozen=True)
class Curve:
    """Least CPU seconds at each amount of work, and how they grow.

    Attributes:
        exponent: Slope of log(cost) over log(work), over all points: 1 is linear.
        end_exponent: The same over the last doubling alone, where fixed costs weigh least.
        per_doubling: Cost ratio from each amount to the next, which is twice as much.
    """

    name: str
    work: list[int]
    cpu_s: list[float]
    spread: list[float]
    exponent: float
    end_exponent: float
    per_doubling: list[float]
    verdict: str


def train_images(images: int) -> Callable[[], None]:
    """One epoch of so many images, the bank there already."""
    return _train(Setting(images=images, batch=BATCH, rounds=0, runtime="torch"))


def train_epochs(epochs: int) -> Callable[[], None]:
    """So many epochs of 256 images."""
    return _train(Setting(images=256, batch=BATCH, rounds=epochs - 1, runtime="torch"))


def _train(setting: Setting) -> Callable[[], None]:
    ours = Ours(setting, logits="bank")
    _built(ours)
    return lambda: _drain(ours.epochs())


def _built(ours: Ours) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _drain(ours.fill_bank(Path(folder) / "bank"))


def students_with_bank(count: int) -> Callable[[], None]:
    """One bank of one view, then so many students, each for an epoch of the same 256 images."""
    ours = Ours(Setting(images=256, batch=BATCH, rounds=0, runtime="torch"), logits="bank")

    def run() -> None:
        _built(ours)
        for _ in range(count):
            _drain(ours.epochs())

    return run


def students_live(count: int) -> Callable[[], None]:
    """So many students, each of which asks the teacher itself."""
    ours = Ours(Setting(images=256, batch=BATCH, rounds=0, runtime="torch"), logits="live")

    def run() -> None:
        for _ in range(count):
            _drain(ours.epochs())

    return run


def data_set(images: int) -> Callable[[], None]:
    """An epoch without a network: its order, its plan, and every batch cropped and flipped."""
    pixels = np.random.default_rng(0).integers(0, 256, (images, 3, 32, 32), dtype=np.uint8)
    loader = Loader(Split(pixels, np.zeros(images, dtype=np.int64)), device=CPU)
    augment = Setting().recipe.augment

    def run() -> None:
        view, rows = epoch_view(augment, n=images, image_size=32, epoch=0, train_seed=0, epochs=1)
        _drain(loader.epoch(epoch_order(0, 0, images), view, rows, BATCH, channels_last=True).batches())

    return run


def _drain(steps: Iterable[Any]) -> None:
    for _ in steps:
        pass


CURVES: dict[str, tuple[Callable[[int], Callable[[], None]], tuple[int, ...]]] = {
    "images": (train_images, (128, 256, 512, 1024)),
    "epochs": (train_epochs, (1, 2, 4, 8)),
    "students, one bank": (students_with_bank, (1, 2, 4, 8)),
    "students, live": (students_live, (1, 2, 4, 8)),
    "data set": (data_set, (4_000, 8_000, 16_000, 32_000, 64_000, 128_000)),
}


def measure(points: list[Point], repeats: int) -> dict[tuple[str, int], list[float]]:
    """CPU seconds of every point, in another order each time; each curve has been run once before."""
    costs: dict[tuple[str, int], list[float]] = {(point.curve, point.work): [] for point in points}
    for curve in {point.curve: point for point in reversed(points)}.values():
        curve.run()
    for number in range(repeats):
        print(f"repeat {number + 1} of {repeats} ...", file=sys.stderr, flush=True)
        for point in np.random.default_rng(number).permutation(np.array(points, dtype=object)):
            meter = Meter(CPU)
            point.run()
            costs[point.curve, point.work].append(meter.stop().cpu_s)
    return costs


def fit_curve(name: str, costs: dict[int, list[float]]) -> Curve:
    """How cost grows with work; the works double from one to the next."""
    work = sorted(costs)
    least = [min(costs[amount]) for amount in work]
    spread = [max(costs[amount]) / min(costs[amount]) - 1 for amount in work]
    exponent = float(np.polyfit(np.log(work), np.log(least), 1)[0])
    ratios = [after / before for before, after in pairwise(least)]
    end = float(np.log2(ratios[-1]) / np.log2(work[-1] / work[-2]))
    return Curve(name, work, least, spread, exponent, end, ratios, _verdict(exponent, end))


def _verdict(exponent: float, end: float) -> str:
    if abs(end - 1) <= NEAR and abs(exponent - 1) <= NEAR:
        return "near-linear"
    if end < 1 - NEAR:
        return "grows slower than the work: what is done once still weighs"
    if end > 1 + NEAR:
        return "grows faster than the work"
    return "near-linear at the end, flatter before: what is done once weighs less and less"


def plot(curves: list[Curve], path: Path) -> Path:
    """Four panels, logarithmic on both axes, each with the line of linear growth through its last point."""
    panels = {"images": ["images"], "epochs": ["epochs"], "students": ["students, one bank", "students, live"]}
    panels["data set"] = ["data set"]
    by_name = {curve.name: curve for curve in curves}
    units = {"images": "images, one epoch", "epochs": "epochs of 256 images", "students": "students of one teacher"}
    with drawing():
        figure = Figure(figsize=(8.4, 6.2), layout="constrained")
        for axes, (title, names) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
            for name, color in zip(names, (TRAIN_COLOR, VAL_COLOR), strict=False):
                _draw(axes, by_name[name], color)
            label(axes, title.capitalize(), x=units.get(title, "images, planned and augmented"), y="CPU seconds")
            axes.legend(loc="upper left", fontsize=8)
        return save(figure, path)


def _draw(axes: Axes, curve: Curve, color: str) -> None:
    linear = [curve.cpu_s[-1] * work / curve.work[-1] for work in curve.work]
    axes.plot(curve.work, linear, color="#999999", linewidth=0.9, linestyle=":")
    text = f"{curve.name}, slope {curve.exponent:.2f}"
    axes.plot(curve.work, curve.cpu_s, color=color, marker="o", markersize=4, label=text)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(curve.work, [f"{work // 1000}k" if work >= 4000 else f"{work:,}" for work in curve.work])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")


def render(curves: list[Curve]) -> Table:
    """A row for each curve."""
    table = Table(title="CPU seconds against work, ResNet-56 -> ResNet-20, one thread")
    for column in ("work", "amounts", "CPU seconds", "ratio per doubling", "exponent", "verdict"):
        table.add_column(column)
    for curve in curves:
        ratios = " ".join(f"{ratio:.2f}" for ratio in curve.per_doubling)
        costs = " ".join(f"{cost:.3g}" for cost in curve.cpu_s)
        amounts = " ".join(f"{work:,}" for work in curve.work)
        table.add_row(curve.name, amounts, costs, ratios, f"{curve.exponent:.2f}", curve.verdict)
    return table


def build_document(costs: dict[tuple[str, int], list[float]], repeats: int) -> tuple[dict[str, Any], list[Curve]]:
    """Every figure, and the curves."""
    names = list(dict.fromkeys(name for name, _ in costs))
    curves = [fit_curve(name, {work: each for (curve, work), each in costs.items() if curve == name}) for name in names]
    document = {"benchmark": "scaling", "batch": BATCH, "repeats": repeats, **environment()}
    return document | {"curves": [asdict(curve) for curve in curves]}, curves


def main(arguments: list[str] | None = None) -> None:
    """Measures, draws, and prints a table, or one JSON document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    parser.add_argument("--out", type=Path, help="folder for scaling.svg and scaling.json (default: none is written)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of every point (default: 3)")
    parser.add_argument("--points", type=int, help="only the first so many points of each curve (default: all)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    prepare_process("cpu")
    points = [
        Point(name, work, build(work))
        for name, (build, amounts) in CURVES.items()
        for work in amounts[: options.points]
    ]
    document, curves = build_document(measure(points, options.repeats), options.repeats)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        plot(curves, options.out / "scaling.svg")
        (options.out / "scaling.json").write_text(json.dumps(document, indent=1) + "\n")
    if options.json:
        print(json.dumps(document))
    else:
        Console().print(render(curves))


if __name__ == "__main__":
    main()
