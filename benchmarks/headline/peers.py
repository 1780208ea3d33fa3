"""The time of a step beside ``timm.task``: the same teacher, student, images, batches and precision on one device.

Both get their batches from the same loader, which holds the images on the device, so that the step alone differs:
timm asks the teacher in every step; distill does too (``live``), or reads what was answered before (``bank``).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.headline.runs import Machine, OutOfTimeError, Watch, say
from benchmarks.headline.tasks import Task
from distill.data.batches import Loader
from distill.data.datasets import Dataset
from distill.data.views import epoch_order, epoch_view
from distill.devices import autocast, deterministic_kernels, resolve_device, resolve_precision
from distill.errors import TerminatedRunError
from distill.models import build_model, build_normalize
from distill.models.trained import load_trained
from distill.pipeline import train_student
from distill.pipeline.context import Context, prepare
from distill.pipeline.teacher import resolve_teacher
from distill.recipe.objectives import KDObjective
from distill.runs import RunFolder
from distill.train.optim import build_optimizer

__all__ = ["StepTime", "time_steps"]

_EPOCHS = 4  # the first compiles
_PLAIN = ("augment.cutmix.alpha=0.0", "augment.views=1")  # hard labels, which everybody's loss takes


@dataclass(frozen=True)
class StepTime:
    """Milliseconds a step: the median over ``n`` epochs, of each epoch's mean."""

    name: str
    median_ms: float
    epochs_ms: tuple[float, ...]
    n: int
    batch: int


def time_steps(
    task: Task, teacher_run: Path, machine: Machine, tell: Callable[[list[StepTime]], None]
) -> list[StepTime]:
    """Time a few epochs of each.

    Args:
        tell: Handed all that was found whenever one is finished: the next may be cut off.

    Raises:
        OutOfTimeError: The deadline passed.
    """
    ways: list[Callable[[], StepTime]] = [
        partial(_ours, task, teacher_run, machine, logits) for logits in ("bank", "live")
    ]
    try:
        import timm.task  # noqa: F401
    except ImportError:
        say("this timm has no timm.task: left out")
    else:
        compiled = (False, True) if resolve_device(machine.device).type == "cuda" else (False,)
        ways += [partial(_timm, task, teacher_run, machine, each) for each in compiled]
    found: list[StepTime] = []
    for way in ways:
        found.append(way())
        tell(found)
    return found


def _changed(task: Task, name: str, *changes: str) -> Task:
    return replace(task, name=name, overrides=(*task.overrides, *_PLAIN, f"train.epochs={_EPOCHS}", *changes))


def _ours(task: Task, teacher_run: Path, machine: Machine, logits: str) -> StepTime:
    own = _changed(task, f"peers_{logits}", f"teacher.logits={logits}")
    elsewhere = replace(machine, runs_dir=machine.runs_dir.parent / "peers")
    watch = Watch(own.label, machine.deadline)
    try:
        result = train_student(own.recipe(), teacher=str(teacher_run.resolve()), options=elsewhere.options(watch))
    except TerminatedRunError:
        raise OutOfTimeError(own.label) from None
    run = RunFolder(result.run)
    data = run.info.data
    assert data is not None, "a finished run says what it had"
    steps = -(-data["train"] // own.recipe().train.batch_size)
    return _step_time(f"distill, {logits}", [line["seconds"] for line in run.timing()], steps, own)


def _step_time(name: str, seconds: list[float], steps: int, task: Task) -> StepTime:
    epochs = tuple(1e3 * each / steps for each in seconds[1:])
    return StepTime(name, statistics.median(epochs), epochs, len(epochs), task.recipe().train.batch_size)


# timm


def _timm(task: Task, teacher_run: Path, machine: Machine, compiled: bool) -> StepTime:
    own = _changed(task, "peers_timm")
    recipe = resolve_teacher(own.recipe(), runs_dir=machine.runs_dir, override=str(teacher_run.resolve()))
    context = prepare(recipe, machine.options(Watch(own.label, machine.deadline)))
    splits = context.splits
    assert splits is not None, "prepare loads them"
    step, normalize = _timm_step(context, splits.dataset, teacher_run, compiled)
    loader = Loader(splits.train, device=context.device, fill=splits.fill)
    seconds, steps = [], 0
    with deterministic_kernels(context.device, context.recipe.train.deterministic):  # as distill's own runs have it
        for epoch in range(_EPOCHS):
            if machine.left_s < 0:
                raise OutOfTimeError(own.label)
            started, steps = time.perf_counter(), 0
            for images, labels in _batches(context, loader, epoch):
                step(normalize(images), labels)
                steps += 1
            _wait(context.device)
            seconds.append(time.perf_counter() - started)
    return _step_time(f"timm.task{', compiled' if compiled else ''}", seconds, steps, own)


def _batches(context: Context, loader: Loader, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    recipe = context.recipe
    view, rows = epoch_view(
        recipe.augment, n=len(loader), image_size=32, epoch=epoch, train_seed=0, epochs=recipe.train.epochs
    )
    order = epoch_order(0, epoch, len(loader))
    for batch in loader.epoch(order, view, rows, recipe.train.batch_size, channels_last=True).batches():
        yield batch.images, batch.labels


def _timm_step(context: Context, dataset: Dataset, teacher_run: Path, compiled: bool) -> tuple[Any, Any]:
    from timm.task import LogitDistillationTask

    recipe, device = context.recipe, context.device
    precision, objective = resolve_precision(recipe.train.precision, device).name, recipe.objective
    assert isinstance(objective, KDObjective), "what timm's task does"
    normalize = build_normalize(recipe.model, mean=dataset.mean, std=dataset.std)
    student = build_model(recipe.model, num_classes=len(dataset.classes))
    student.to(device).to(memory_format=torch.channels_last)
    teacher = load_trained(RunFolder(teacher_run), device=device)
    for network, norm in ((student, normalize), (teacher.module, teacher.normalize)):
        facts = {"pretrained_cfg": {"mean": norm.mean, "std": norm.std}, "num_classes": len(dataset.classes)}
        vars(network).update(facts, in_chans=3)  # where timm looks for them
    task = LogitDistillationTask(
        student,
        teacher.module,
        criterion=nn.CrossEntropyLoss(),
        distill_loss_weight=objective.kd_weight,
        task_loss_weight=objective.ce_weight,
        temperature=objective.temperature,
        device=device,
        verbose=False,
    ).train()
    optimizer = build_optimizer(student, recipe.optim, head=(), stages=[("",)], device=device)
    if compiled:
        task.compile(dynamic=False)

    def step(images: Tensor, labels: Tensor) -> None:
        with autocast(device, precision):
            loss = task(images, labels)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step, normalize


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
