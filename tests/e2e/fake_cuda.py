"""A run on a CUDA runtime that launches nothing: what it compiles, how often it waits, what it says, never its numbers.

``run python -m fake_cuda CASE FOLDER`` (see test_fake_cuda.py) prints what was found as one line of JSON. Kernels are
not executed there, so whatever looks at values is switched off: here, and in processes that import this.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from distill.errors import DistillError
from distill.events import EpochDone, Event, Note, StepDone
from distill.pipeline import Options, train_student
from distill.recipe import parse_recipe
from distill.train import loop
from distill.train.epoch_sums import Tally

RECIPE = """
schema_version: 1
name: on_a_stand_in
role: baseline
data: {name: synthetic, limit: 150, test_limit: 60}
augment: {crop_padding: 2, hflip: 0.5}
model: {source: students, name: tiny}
optim: {name: sgd, lr: 0.05}
train: {epochs: 3, batch_size: 40, freeze_backbone_epochs: 1}
"""
LARGE = "{source: students, name: resnet, blocks: [1, 1], channels: [256, 256], strides: [1, 1]}"
_LAUNCHES, _WAITS = 0, slice(1, 4)  # of fake_counts: launches; waits for a stream, a device, an event


def _metrics(self: Tally) -> dict[str, float]:
    assert self._sums is not None
    self._sums.tolist()  # waits, as its own does
    return dict.fromkeys(["train_loss", "train_ce", "train_top1"], 0.5)


def _validate(*args: Any, real: Any = loop._validate) -> dict[str, float]:
    return dict.fromkeys(real(*args), 0.5)


Tally.metrics = _metrics  # type: ignore[method-assign]
Tally.check_finite = lambda self, **_: None  # type: ignore[method-assign, assignment]
loop._validate = _validate
loop._all_finite = lambda module: True


def counts() -> list[int]:
    """What the stand-in counted so far."""
    found = ctypes.CDLL(None).fake_counts
    found.restype = ctypes.POINTER(ctypes.c_long)
    return list(found()[:13])


@dataclass
class Listener:
    """Notes what a run tells, and what each step cost; by its class, processes that are started import this module."""

    place: str
    notes: list[str] = field(default_factory=list)
    waits: list[int] = field(default_factory=list)
    launches: list[int] = field(default_factory=list)
    compile_s: list[float] = field(default_factory=list)
    _before: list[int] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        now = counts()
        if isinstance(event, StepDone) and event.step > 1:
            self.waits.append(sum(now[_WAITS]) - sum(self._before[_WAITS]))
            self.launches.append(now[_LAUNCHES] - self._before[_LAUNCHES])
        elif isinstance(event, EpochDone):
            self.compile_s.append(event.compile_s)
            graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
            Path(self.place).write_text(json.dumps(asdict(self) | {"graphs": graphs}))
        elif isinstance(event, Note):
            self.notes.append(event.message)
        self._before = counts()


def _timed() -> None:
    """Ten rounds of a small network on the device."""
    from distill.evaluation.latency import measure_latency

    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU()).cuda().eval()
    before = counts()
    found = measure_latency({"a": network}, {"a": (3, 8, 8)}, device=torch.device("cuda", 0), rounds=10)
    now = counts()
    print(json.dumps({"batches": list(found["a"]), "captures": now[12] - before[12], "replays": now[11] - before[11]}))


def _main(case: str, folder: Path) -> None:
    if case == "latency":
        return _timed()
    if case == "no compiler":
        os.environ["PATH"] = str(folder)
        os.environ.pop("CC", None)
    changes = {
        "compiled": (),
        "no compiler": (),
        "two devices": ("train.compile=true",),
        "little memory": ("train.compile=false", "train.batch_size=120", f"model={LARGE}"),
    }[case]
    recipe = parse_recipe(RECIPE, source="stand-in", overrides=list(changes))
    said, place = None, folder / "told.json"  # by a process of its own, where there are two
    options = Options(
        runs_dir=folder / "runs",
        device="cuda",
        threads=1,
        devices=1 + (case == "two devices"),
        on_event=Listener(str(place)),
    )
    try:
        train_student(recipe, options=options)
    except DistillError as error:
        said = [error.message, error.hint]
    print(json.dumps((json.loads(place.read_text()) if place.exists() else {}) | {"said": said}))


if __name__ == "__main__":
    # By its name, so that a process that is started imports it too.
    importlib.import_module("fake_cuda")._main(sys.argv[1], Path(sys.argv[2]))
