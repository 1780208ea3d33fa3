"""Which number of threads and which memory format a training step is fastest in, from LeNet to r18_small.

``python -m benchmarks.threads [--json] [--out DIR] [--rounds 5] [--threads 1,2] [--only resnet20_cifar10,...]``

A process for each number of threads waits for its turn; all settings of all networks take turns in every round, first
on the machine as it is, then with one core kept busy by somebody else. Steps are of network and optimiser alone.
``ONEDNN_MAX_CPU_ISA=AVX2`` in the environment measures what a CPU without AVX-512 would do.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

LADDER = (
    ("lenet_cifar10", 5),
    ("quickstart_scratch", 64),
    ("r222_sgd", 5),
    ("lenet_cifar10", 128),
    ("quickstart_teacher", 64),
    ("cnn_cifar10", 128),
    ("resnet20_cifar10", 32),
    ("resnet20_cifar10", 128),
    ("vit_tiny_cifar10_scratch", 32),
    ("grouped_resnet_cifar100", 32),
    ("r18_small", 16),
    ("r18_small", 64),
)
LAYOUTS = ("contiguous", "channels_last")
LOADS = ("as it is", "one core busy")
TURN_S = 0.3  # a turn takes as many steps as fit in here on one thread, and one at least


@dataclass(frozen=True)
class Setting:
    """How one network's step is done; ``batch`` images at a time."""

    recipe: str
    batch: int
    threads: int
    layout: str


@dataclass(frozen=True)
class Cell:
    """What a setting came to under one load: medians over the rounds.

    Attributes:
        relative: Images per second, over those of one thread and contiguous images in the same round.
        relative_cpu: The same of images per CPU second, which other programs on the machine hardly touch.
        cpu_s: CPU seconds of a step, all threads together.
    """

    setting: Setting
    load: str
    images_per_s: float
    relative: float
    relative_range: tuple[float, float]
    relative_cpu: float
    cpu_s: float


class Child:
    """A process with so many threads; idle between its turns."""

    def __init__(self, threads: int) -> None:
        command = [sys.executable, "-m", "benchmarks.threads", "--child", str(threads)]
        environment = {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ  # as the command line has it
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, setting: Setting, steps: int) -> dict[str, float]:
        """Take so many steps: wall and CPU seconds of one."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(asdict(setting) | {"steps": steps}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def serve(threads: int) -> None:
    """A child's life: settings come in, seconds go out."""
    import torch

    from distill.devices import keep_freed_memory

    torch.set_num_threads(threads)
    keep_freed_memory(torch.device("cpu"))
    stepping: dict[Setting, Any] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        steps = asked.pop("steps")
        setting = Setting(**asked)
        if setting not in stepping:
            stepping[setting] = _stepper(setting)
            stepping[setting]()
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(steps):
            stepping[setting]()
        found = {"wall_s": (time.perf_counter() - wall) / steps, "cpu_s": (time.process_time() - cpu) / steps}
        print(json.dumps(found), flush=True)


def _stepper(setting: Setting) -> Any:
    import torch
    from torch.nn import functional as F

    from distill.devices import force_contiguous_inputs
    from distill.models import build_model
    from distill.recipe import load_recipe

    spec = load_recipe(setting.recipe, []).model
    classes = 100 if "cifar100" in setting.recipe else 10
    network = build_model(spec, num_classes=classes)
    images = torch.randn(setting.batch, 3, spec.input_size, spec.input_size)
    if setting.layout == "channels_last":
        network = network.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    force_contiguous_inputs(network, torch.device("cpu"))
    labels = torch.arange(setting.batch) % classes
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()

    return step


@contextmanager
def _busy(load: str) -> Iterator[None]:
    """Somebody else's program on one core."""
    if load == LOADS[0]:
        yield
        return
    spinner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        spinner.kill()
        spinner.wait()


def measure(settings: list[Setting], loads: tuple[str, ...], rounds: int) -> tuple[list[Cell], dict[str, Any]]:
    """Every setting in turn, and the machine's load average around it."""
    children = {threads: Child(threads) for threads in sorted({setting.threads for setting in settings})}
    averages: dict[str, Any] = {}
    cells = []
    try:
        steps: dict[tuple[str, int], int] = {}
        for setting in settings:  # warm up, and find how many steps a turn has; the same number for all four settings
            key, took = (setting.recipe, setting.batch), children[setting.threads].ask(setting, 1)["wall_s"]
            steps.setdefault(key, max(1, min(50, int(TURN_S / took))))
        for load in loads:
            averages[load] = [os.getloadavg()[0]]
            with _busy(load):
                found = _take_turns(settings, children, steps, rounds, load)
            averages[load].append(os.getloadavg()[0])
            cells += [_cell(setting, load, found) for setting in settings]
    finally:
        for child in children.values():
            child.close()
    return cells, averages


def _take_turns(
    settings: list[Setting],
    children: dict[int, Child],
    steps: dict[tuple[str, int], int],
    rounds: int,
    load: str,
) -> dict[Setting, list[dict[str, float]]]:
    found: dict[Setting, list[dict[str, float]]] = {setting: [] for setting in settings}
    for number in range(rounds):
        print(f"{load}: round {number + 1} of {rounds} ...", file=sys.stderr, flush=True)
        for setting in settings if number % 2 == 0 else reversed(settings):
            found[setting].append(children[setting.threads].ask(setting, steps[setting.recipe, setting.batch]))
    return found


def _cell(setting: Setting, load: str, found: dict[Setting, list[dict[str, float]]]) -> Cell:
    base = Setting(setting.recipe, setting.batch, 1, LAYOUTS[0])
    ratios = [b["wall_s"] / own["wall_s"] for b, own in zip(found[base], found[setting], strict=True)]
    wall = statistics.median(own["wall_s"] for own in found[setting])
    return Cell(
        setting,
        load,
        images_per_s=setting.batch / wall,
        relative=statistics.median(ratios),
        relative_range=(min(ratios), max(ratios)),
        relative_cpu=statistics.median(
            b["cpu_s"] / own["cpu_s"] for b, own in zip(found[base], found[setting], strict=True)
        ),
        cpu_s=statistics.median(own["cpu_s"] for own in found[setting]),
    )


def work(recipe: str, batch: int) -> dict[str, float]:
    """What the rule looks at: multiply-accumulates of a forward pass of one batch, and of one layer in it."""
    from distill.evaluation.cost import spec_cost
    from distill.recipe import load_recipe

    cost = spec_cost(load_recipe(recipe, []).model, 100 if "cifar100" in recipe else 10)
    layers = sum(1 for layer in cost.layers if layer.macs)
    return {"gmacs": cost.macs * batch / 1e9, "layers": layers, "mmacs_per_layer": cost.macs * batch / layers / 1e6}


def render(document: dict[str, Any]) -> Table:
    """A row for each network and batch; relative speeds, one thread and contiguous images being 1."""
    table = Table(title="Speed of a training step (by CPU time); 1 is one thread, contiguous images, in the same round")
    loads = list(document["load_average"])
    threads = sorted({cell["setting"]["threads"] for cell in document["cells"]})
    columns = [(load, n, layout) for load in loads for n in threads for layout in LAYOUTS]
    table.add_column("network, batch")
    table.add_column("MMACs a layer", justify="right")
    for load, n, layout in columns:
        table.add_column(f"{load}\n{n} thr. {layout}", justify="right")
    for row in document["networks"]:
        by = {
            (cell["load"], cell["setting"]["threads"], cell["setting"]["layout"]): cell
            for cell in document["cells"]
            if (cell["setting"]["recipe"], cell["setting"]["batch"]) == (row["recipe"], row["batch"])
        }
        shown = [f"{by[key]['relative']:.2f} ({by[key]['relative_cpu']:.2f})" if key in by else "" for key in columns]
        table.add_row(f"{row['recipe']}, {row['batch']}", f"{row['mmacs_per_layer']:.3g}", *shown)
    return table


def main(arguments: list[str] | None = None) -> None:
    """Measures and prints a table, or one JSON document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.threads", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    parser.add_argument("--out", type=Path, help="folder for threads.json (default: none is written)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of every setting under each load (default: 5)")
    parser.add_argument("--threads", default="1,2", help="numbers of threads, 1 among them (default: 1,2)")
    parser.add_argument("--no-busy", action="store_true", help="measure the machine as it is alone")
    parser.add_argument("--only", help="recipes of the ladder, by name (default: all)")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child is not None:
        serve(options.child)
        return
    only = options.only.split(",") if options.only else None
    ladder = [(recipe, batch) for recipe, batch in LADDER if only is None or recipe in only]
    counts = sorted({1, *(int(number) for number in options.threads.split(","))})
    settings = [Setting(*rung, threads, layout) for rung in ladder for threads in counts for layout in LAYOUTS]
    cells, averages = measure(settings, LOADS[:1] if options.no_busy else LOADS, options.rounds)
    from benchmarks.augment import environment

    document = {
        "benchmark": "threads",
        "rounds": options.rounds,
        **environment(),
        "onednn_max_cpu_isa": os.environ.get("ONEDNN_MAX_CPU_ISA"),
        "load_average": averages,
        "networks": [{"recipe": recipe, "batch": batch, **work(recipe, batch)} for recipe, batch in ladder],
        "cells": [asdict(cell) for cell in cells],
    }
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "threads.json").write_text(json.dumps(document, indent=1) + "\n")
    if options.json:
        print(json.dumps(document))
    else:
        Console(width=200).print(render(document))


if __name__ == "__main__":
    main()
