"""How often a run compiles, counted by a backend of torch.compile, and where the time of it goes."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from distill.data.batches import Loader
from distill.data.images import Split
from distill.devices import compiling
from distill.events import EpochDone, Note
from distill.models import Normalize, build_model
from distill.models.trained import Trained
from distill.objectives import build_objective
from distill.recipe import parse_recipe
from distill.recipe.schema import TrainSpec
from distill.teaching.live import compile_teacher
from distill.teaching.objective import ObjectiveWithTeacher
from distill.train import loop
from distill.train.loop import Job, fit

RECIPE = """
schema_version: 1
name: compiled
role: baseline
model: {source: students, name: tiny, input_size: 8}
augment: {crop_padding: 0, hflip: 0.5}
data: {name: synthetic, image_size: 8}
optim: {name: sgd, lr: 0.05}
train: {epochs: 3, batch_size: 8, precision: fp32, channels_last: false, compile: true}
"""
COMPILING_S = 1000.0


class Counted:
    """A backend that runs graphs as they are, notes the images of each, and takes long by a clock of its own."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.now = 0.0

    def __call__(self, graph: Any, inputs: list[Any]) -> Callable[..., Any]:
        self.batches += [len(each) for each in inputs if each.shape[1:] == (3, 8, 8)]
        self.now += COMPILING_S
        return cast("Callable[..., Any]", graph.forward)

    def monotonic(self) -> float:
        """A second for each look."""
        self.now += 1.0
        return self.now


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    torch._dynamo.reset()
    counted, compile_it = Counted(), nn.Module.compile

    def by_counting(module: nn.Module, *, mode: str, dynamic: bool) -> None:
        compile_it(module, backend=counted, dynamic=dynamic)

    monkeypatch.setattr(nn.Module, "compile", by_counting)
    clock = SimpleNamespace(monotonic=counted.monotonic)
    monkeypatch.setattr(loop, "time", clock)
    monkeypatch.setattr(compiling, "time", clock)
    return counted


def told(*overrides: str, images: int = 44) -> list[object]:
    recipe = parse_recipe(RECIPE, source="test", overrides=list(overrides))
    generator = np.random.default_rng(3)
    split = Split(generator.integers(0, 256, (images, 3, 8, 8), dtype=np.uint8), generator.integers(0, 5, images))
    module = build_model(recipe.model, num_classes=5)
    loader = Loader(split, device="cpu")
    objective = ObjectiveWithTeacher(build_objective(recipe.objective))
    job = Job("run", recipe, module, Normalize((0.5,) * 3, (0.2,) * 3, 8), objective, loader, loader, checkpoints=None)
    return list(fit(job, Fabric(accelerator="cpu", devices=1)))


def test_a_run_compiles_once_whatever_it_does(counted: Counted) -> None:
    """44 images: five whole batches and a short one; frozen at first, then not; validated in batches of 44."""
    told("train.freeze_backbone_epochs=1")
    assert counted.batches == [8]


def test_what_is_the_usual_case_is_compiled_though_it_is_short_or_frozen(counted: Counted) -> None:
    told("train.batch_size=64")  # 44 images in an epoch's one step
    assert counted.batches == [44]
    counted.batches.clear()
    torch._dynamo.reset()
    told("train.freeze_backbone_epochs=3")
    assert counted.batches == [8]


def test_an_average_is_validated_and_features_are_tapped_without_compiling_again(counted: Counted) -> None:
    told("train.ema=0.9", "train.accumulate=2")
    assert counted.batches == [4]


def test_compiling_is_told_and_counted_apart_from_the_steps(counted: Counted) -> None:
    events = told("train.freeze_backbone_epochs=1")
    done = [each for each in events if isinstance(each, EpochDone)]
    assert [each.compile_s >= COMPILING_S for each in done] == [False, True, False]
    assert max(each.seconds for each in done) < COMPILING_S / 10
    assert all(each.images_per_s == pytest.approx(44 / each.seconds) for each in done)
    (note,) = [each.message for each in events if isinstance(each, Note) and "compiling took" in each.message]
    assert note.startswith(f"compiling took {COMPILING_S:.0f}"[:-1])


def test_without_compiling_nothing_is_counted(counted: Counted) -> None:
    events = told("train.compile=false")
    assert counted.batches == []
    assert all(each.compile_s == 0.0 for each in events if isinstance(each, EpochDone))


@pytest.mark.parametrize(
    ("device", "compile_mode", "batches", "compiled"),
    [
        ("cuda", "default", 3_920, False),  # 40 views of CIFAR-10 in batches of 512
        ("cuda", "default", 78_200, True),  # 200 epochs asked live
        ("cuda", False, 78_200, False),
        ("cpu", "default", 78_200, False),
    ],
)
def test_a_teacher_is_compiled_where_it_is_asked_often(
    device: str, compile_mode: Any, batches: int, compiled: bool
) -> None:
    calls: list[dict[str, Any]] = []
    module = SimpleNamespace(compile=lambda **options: calls.append(options))
    teacher = cast("Trained", SimpleNamespace(device=torch.device(device), module=module))
    compile_teacher(teacher, TrainSpec(compile=compile_mode), batches=batches)
    assert bool(calls) is compiled
