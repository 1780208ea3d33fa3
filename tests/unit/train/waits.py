"""No step waits for the device: the real loop, on a device that is simulated and sees each wait of the host.

Collected by test_waits.py, in a process of its own: torch learns of another device only before its first backward pass.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.accelerators import CPUAccelerator
from lightning_fabric.strategies import SingleDeviceStrategy
from timm.optim import Lookahead as TimmLookahead
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from distill.data.batches import Batch, Loader
from distill.data.images import Split
from distill.events import EpochDone, StepDone
from distill.models import Normalize, build_model
from distill.models.trained import Trained
from distill.objectives import LossParts, NetworkOutput, build_objective
from distill.recipe import Recipe, parse_recipe
from distill.teaching import build
from distill.teaching.bank import Bank
from distill.teaching.objective import ObjectiveWithTeacher, TeacherSource
from distill.teaching.stored import StoredTeacher
from distill.train.lookahead import ManyLookahead
from distill.train.loop import Job, fit

_SPEC = importlib.util.spec_from_file_location("simulated", Path(__file__).parents[1] / "devices" / "simulated.py")
assert _SPEC is not None
assert _SPEC.loader is not None
simulated = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(simulated)
device, Simulated = simulated.device, simulated.Simulated

RECIPE = """
schema_version: 1
name: waiting
role: baseline
model: {source: students, name: tiny, input_size: 8}
augment: {crop_padding: 1, hflip: 0.5}
data: {name: synthetic, image_size: 8}
optim: {name: sgd, lr: 0.05}
train: {epochs: 2, batch_size: 8, precision: fp32, channels_last: true, compile: false}
"""
N, CLASSES, STEPS = 44, 5, 6  # the last batch is a short one
A_TEACHER = "objective={kind: kd, ce_weight: 0.3, kd_weight: 0.7, temperature: 3.0}"
ADAMW = "optim={name: adamw, lr: 0.01, lookahead: {k: 2, alpha: 0.5}}"
EVERYTHING = (
    "train.ema=0.9",
    "train.accumulate=2",
    "train.clip_norm=0.5",
    "train.clip_value=0.1",
    "train.label_smoothing=0.1",
    "augment.mixup={alpha: 0.4, probability: 0.7}",
    "augment.cutmix={alpha: 1.0, probability: 0.5}",
    "augment.erase={size: 3}",
    "schedule={kind: one_cycle}",
    ADAMW,
)


class _Anywhere(CPUAccelerator):
    """Sets nothing up."""

    def setup_device(self, device: torch.device) -> None:
        pass


class Remembered:
    """A teacher's answers, on the device, as a bank's are."""

    def __init__(self, where: torch.device) -> None:
        logits = np.random.default_rng(5).normal(size=(N, CLASSES)).astype(np.float32)
        self._logits = torch.from_numpy(logits).to(where)

    def outputs(self, batch: Batch) -> NetworkOutput:
        return NetworkOutput(self._logits.index_select(0, batch.index))


def recipe_of(*overrides: str) -> Recipe:
    if A_TEACHER in overrides:
        overrides = (*overrides, "role=student", "teacher={run: another}")
    return parse_recipe(RECIPE, source="test", overrides=list(overrides))


class Told:
    """What a fit told, and what it waited for: between two steps, and in a whole epoch but its first."""

    def __init__(self) -> None:
        self.metrics: list[dict[str, float]] = []
        self.in_steps: list[str] = []
        self.in_epochs: list[list[str]] = []
        self.weights: list[Tensor] = []


def in_memory(where: torch.device) -> StoredTeacher:
    """A bank of two views that is too large for the device."""
    logits = np.random.default_rng(5).normal(size=(2, N, CLASSES)).astype(np.float16)
    info = SimpleNamespace(images=N, width=CLASSES, view_bytes=logits[0].nbytes, features=0, classes=range(CLASSES))
    files = {"view": lambda number: logits[number], "part": lambda number, _: logits[number]}  # one file a view
    bank = cast("Bank", SimpleNamespace(info=info, **files))
    return StoredTeacher(bank, device=where, views=2)


def told(
    where: torch.device,
    overrides: tuple[str, ...],
    spoil: Callable[[ObjectiveWithTeacher], ObjectiveWithTeacher] = lambda whole: whole,
    teacher: Callable[[torch.device], TeacherSource] = Remembered,
) -> Told:
    recipe = recipe_of(*overrides)
    generator = np.random.default_rng(3)
    split = Split(generator.integers(0, 256, (N, 3, 8, 8), dtype=np.uint8), generator.integers(0, CLASSES, N))
    torch.manual_seed(0)
    module = build_model(recipe.model, num_classes=CLASSES)
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric._accelerator = _Anywhere()
    fabric._strategy = SingleDeviceStrategy(where, accelerator=_Anywhere(), precision=fabric._precision)
    found, mode = Told(), Simulated() if where.type == device().type else nullcontext()
    with mode:
        waits = mode.waits if isinstance(mode, Simulated) else []
        objective = build_objective(recipe.objective, label_smoothing=recipe.train.label_smoothing)
        objective = spoil(ObjectiveWithTeacher(objective, teacher(where) if recipe.teacher else None))
        loader, fill = Loader(split, device=where, fill=np.array([9, 8, 7])), Normalize((0.5,) * 3, (0.2,) * 3, 8)
        job = Job("run", recipe, module, fill, objective, loader, loader, checkpoints=None)
        began = at_step = 0
        for event in fit(job, fabric):
            if isinstance(event, StepDone):
                if event.step > 1:
                    found.in_steps += waits[at_step:]
                at_step = len(waits)
            elif isinstance(event, EpochDone):
                found.metrics.append(dict(event.metrics))
                found.in_epochs.append(waits[began:])
                began = len(waits)
        found.weights = [each.detach().cpu().clone() for each in module.state_dict().values()]
    return found


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        (A_TEACHER,),
        EVERYTHING,
        (*EVERYTHING, A_TEACHER),
        ("optim={name: rmsprop, lr: 0.001}",),
        ("optim={name: adagrad, lr: 0.01}",),
    ],
    ids=["plain", "taught", "all options", "all options, taught", "rmsprop", "adagrad"],
)
def test_no_step_waits_and_every_bit_is_the_cpus(overrides: tuple[str, ...]) -> None:
    there, here = told(device(), overrides), told(torch.device("cpu"), overrides)
    assert there.in_steps == []
    (second,) = there.in_epochs[1:]  # the first one moves the images too
    sent = [each for each in second if each.startswith("sent ")]
    assert len(second) - len(sent) <= 4, second
    assert len(sent) <= 5, sent  # the plan of an epoch, before its first step
    assert there.metrics == here.metrics
    assert len(here.metrics) == 2
    for one, other in zip(there.weights, here.weights, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("overrides", [(), ("train.accumulate=2", "augment.cutmix={alpha: 1.0, probability: 0.5}")])
def test_a_bank_that_is_too_large_for_the_device_is_looked_up_without_asking_it(overrides: tuple[str, ...]) -> None:
    overrides = (*overrides, A_TEACHER, "augment.views=2")
    there = told(device(), overrides, teacher=in_memory)
    pieces = 2 if len(overrides) > 2 else 1
    assert len(there.in_steps) == 2 * (STEPS - 1) * pieces  # from pinned memory, on a GPU: then it does not wait
    assert all(each.startswith("sent at ") and "/teaching/stored.py:" in each for each in there.in_steps)
    assert there.metrics == told(torch.device("cpu"), overrides, teacher=in_memory).metrics


def test_a_bank_is_built_with_a_look_at_many_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_GPU_BATCH", 2)
    monkeypatch.setattr(build, "CPU_BATCH", 2)
    recipe = recipe_of()
    split = Split(np.random.default_rng(3).integers(0, 256, (N, 3, 8, 8), dtype=np.uint8), np.zeros(N, dtype=np.int64))
    view = build.planned_view(recipe.augment, n=N, image_size=8, number=0)

    def answers(where: torch.device, together: int) -> list[Tensor]:
        teacher = cast("Trained", SimpleNamespace(device=where, classes=range(CLASSES), place="a teacher"))
        loader = Loader(split, device=where)
        weights = torch.randn(192, CLASSES, generator=torch.Generator().manual_seed(1)).to(where)
        found = build._answers(
            loader,
            teacher,
            view,
            "float16",
            np.arange(N),
            threads=None,
            forward=lambda pixels: pixels.flatten(1).float() @ weights / 100,
            together=together,
        )
        return list(found)

    with Simulated() as mode:
        there = answers(device(), 16)
        reads = [each for each in mode.waits if not each.startswith("sent ")]
    assert [len(each) for each in there] == [32, N - 32]
    assert len(reads) == 4, reads  # the largest logit, and the answers, of 22 batches
    assert torch.equal(torch.cat(there), torch.cat(answers(torch.device("cpu"), 16)))


def test_lookahead_has_three_kernels_for_all_parameters() -> None:
    """With the same bits as timm's, whose number of kernels grows with the network."""

    def stepped(kind: Any, layers: int) -> tuple[list[Tensor], int]:
        torch.manual_seed(0)
        network = nn.Sequential(*(nn.Linear(4, 4) for _ in range(layers)))
        optimizer = kind(torch.optim.SGD(network.parameters(), lr=0.1), alpha=0.3, k=2)
        counted = 0
        for at in range(6):
            network(torch.ones(2, 4)).sum().backward()
            with Counting() as counting:
                optimizer.step()
            counted = counting.count if at == 5 else counted
            optimizer.zero_grad()
        return [each.detach() for each in network.parameters()], counted

    ours, theirs = stepped(ManyLookahead, 8), stepped(TimmLookahead, 8)
    assert all(torch.equal(one, other) for one, other in zip(ours[0], theirs[0], strict=True))
    assert theirs[1] - ours[1] == 3 * 16 - 3
    assert ours[1] == stepped(ManyLookahead, 2)[1] + 12  # SGD's own on a CPU: one a parameter


class Counting(TorchDispatchMode):
    """Counts operations that write or make a tensor; a view is none."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket.__name__ not in ("detach", "alias")
        return func(*args, **(kwargs or {}))


class Spoilt:
    """An objective with a planted fault."""

    def __init__(self, whole: ObjectiveWithTeacher, fault: Callable[[LossParts, Batch], LossParts]) -> None:
        self._whole, self._fault = whole, fault
        self.features, self.auxiliary = whole.features, whole.auxiliary

    def begin_epoch(self, epoch: int) -> None:
        self._whole.begin_epoch(epoch)

    def __call__(self, student: NetworkOutput, batch: Batch) -> LossParts:
        return self._fault(self._whole(student, batch), batch)


def _reads_the_loss(result: LossParts, batch: Batch) -> LossParts:
    return replace(result, loss=result.loss * (1.0 if float(result.loss.detach()) > 0 else 2.0))


def _picks_by_truth(result: LossParts, batch: Batch) -> LossParts:
    return replace(result, loss=result.loss + 0 * batch.labels[batch.labels > 1].sum())


def _counts_what_is_not_zero(result: LossParts, batch: Batch) -> LossParts:
    return replace(result, loss=result.loss + 0 * batch.labels.nonzero().sum())


def _sends_a_number(result: LossParts, batch: Batch) -> LossParts:
    return replace(result, loss=result.loss + torch.zeros(1).to(result.loss.device).sum())


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        (_reads_the_loss, "_local_scalar_dense"),
        (_picks_by_truth, "index"),
        (_counts_what_is_not_zero, "nonzero"),
        (_sends_a_number, "sent"),
    ],
)
def test_a_planted_wait_is_found(fault: Callable[[LossParts, Batch], LossParts], name: str) -> None:
    found = told(device(), (), lambda whole: Spoilt(whole, fault))  # type: ignore[arg-type, return-value]
    assert len(found.in_steps) >= 2 * (STEPS - 1)
    assert {each.split()[0] for each in found.in_steps} == {name}


def test_a_planted_tensor_of_the_cpu_is_found() -> None:
    def mixes(result: LossParts, batch: Batch) -> LossParts:
        return replace(result, loss=result.loss + 0 * (batch.labels + torch.ones(batch.size)).sum())

    with pytest.raises(simulated.MixedDevicesError, match="on the CPU"):
        told(device(), (), lambda whole: Spoilt(whole, mixes))  # type: ignore[arg-type, return-value]


def test_it_is_the_device_that_computes() -> None:
    """The comparison of bits is none of the CPU with itself."""
    with Simulated():
        layer = nn.Linear(2, 2).to(device())
        assert layer.weight.device == device()
