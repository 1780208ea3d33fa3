"""Build a bank: run a teacher over planned views of the training images, once."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.data.batches import Loader
from distill.data.splits import Splits
from distill.data.views import View, plan_view, table_view, view_checksum
from distill.devices import describe_device, keep_freed_memory, using_threads
from distill.errors import RunError, UsageError
from distill.evaluation.assess import assess_classifier, split_content
from distill.evaluation.cost import model_cost
from distill.evaluation.latency import measure_latency
from distill.events import Event, Note, StageProgress
from distill.files import writing
from distill.models.fixed_batch import CPU_BATCH, ask
from distill.models.onnx_teacher import OnnxTeacher
from distill.models.taps import POOLED, stage_shapes
from distill.models.trained import Trained
from distill.recipe import Recipe, dump_recipe
from distill.recipe.schema import AugmentSpec
from distill.runs import RunFolder
from distill.teaching.bank import Bank
from distill.teaching.bank_files import TEST_LOGITS, VIEWS
from distill.teaching.bank_info import BankInfo, TeacherRecord
from distill.teaching.key import BankKey
from distill.teaching.live import compile_teacher
from distill.teaching.pieces import ChunkQueue, claimed
from distill.teaching.rounding import check_features, check_logits, largest_of, round_answers
from distill.teaching.runtime import TORCH, Forward
from distill.team.shares import SINGLE_PROCESS, Team, shard_bounds

__all__ = ["BuildCost", "estimate", "fill_bank", "new_bank", "planned_view", "pooled_features"]

_GPU_BATCH = 512
_TOGETHER = 16
_STAGE = "asking the teacher"
_PATIENCE_S = 24 * 3600.0


def planned_view(augment: AugmentSpec, *, n: int, image_size: int, number: int) -> View:
    """What view ``number`` of a bank shows: a drawn view, or one entry of the table of all crops and flips."""
    if augment.views == "all":
        return table_view(augment, n=n, image_size=image_size, number=number)
    return plan_view(augment, n=n, image_size=image_size, view=number)


def new_bank(
    path: Path, key: BankKey, splits: Splits, recipe: Recipe, device: torch.device, *, features: int = 0
) -> Bank:
    """An empty bank for the answers that a teacher gives on ``device``, through the recipe's runtime.

    Args:
        features: How many pooled features it will hold of an image.

    Raises:
        DistillError: The folder cannot be written.
    """
    name = recipe.teacher_runtime
    version = torch.__version__ if name == TORCH else metadata.version(name)
    runtime = {"name": name, "version": version, "device_type": device.type}
    data = recipe.data.model_dump(mode="json")
    info = BankInfo(key=key, images=len(splits.train), runtime=runtime, data=data, features=features)
    return Bank.create(path, info)


def pooled_features(recipe: Recipe, teacher: Recipe | None) -> int:
    """How many numbers the pooled features are that ``recipe`` wants stored; 0: none.

    Args:
        teacher: The teacher's own recipe; None of a file, which has logits alone.
    """
    if teacher is None or not recipe.stored_features:
        return 0
    (count,) = stage_shapes(teacher.model, num_classes=10)[POOLED]  # whatever its classes are
    return count


def fill_bank(
    bank: Bank | None,
    teacher: Trained | OnnxTeacher,
    splits: Splits,
    recipe: Recipe,
    *,
    views: int,
    team: Team = SINGLE_PROCESS,
    forward: Forward | None = None,
) -> Iterator[Event]:
    """Store ``views`` views, going on where an earlier build stopped, and the teacher's figures on the test set.

    Several processes of one team call this alike and share the images of each file; the first one writes, and tells
    all. Teams that know nothing of each other share the files of one bank: each takes those that nobody is at.

    Args:
        bank: What is written to; None in every process but the first.
        forward: The teacher as the recipe's runtime asks it; None: torch.

    Raises:
        RunError: An answer is not finite in its dtype.
        UsageError: It was begun through another runtime.
    """
    if bank:
        bank.renew()
        with writing(bank.path):
            (bank.path / VIEWS).mkdir(exist_ok=True)  # of a damaged bank, it may be lost
        _check_runtime(bank, recipe.teacher_runtime)
    yield from _measure(bank, teacher, splits, recipe, wait_s=0.0)
    yield from _fill(bank, teacher, splits, recipe, views=views, team=team, forward=forward or teacher)
    yield from _measure(bank, teacher, splits, recipe, wait_s=_PATIENCE_S)  # where another process was at it


def _measure(
    bank: Bank | None, teacher: Trained | OnnxTeacher, splits: Splits, recipe: Recipe, *, wait_s: float
) -> Iterator[Event]:
    """Store the teacher's figures, unless they are there, or another process is at them after ``wait_s``."""
    if bank is None or has_figures(bank, splits):
        return
    with claimed(bank, TEST_LOGITS, wait_s=wait_s) as ours:
        bank.renew()
        if ours and not has_figures(bank, splits):
            yield Note(f"measuring the teacher on the test set for the bank {bank.path}")
            with using_threads(recipe.teacher_threads):
                bank.set_teacher(*_described(teacher, splits, recipe))


def has_figures(bank: Bank, splits: Splits) -> bool:
    """Whether a bank holds what ``compare`` wants to know of its teacher, on the test images that are here now."""
    teacher = bank.info.teacher
    is_there = (bank.path / TEST_LOGITS).is_file()
    return is_there and teacher is not None and teacher.figures.test_content == split_content(splits)


def _check_runtime(bank: Bank, runtime: str) -> None:
    name = bank.info.runtime.get("name")
    if name != runtime:
        raise UsageError(
            f"{bank.path} was asked through {name}, and would go on through {runtime}",
            hint="a bank has answers of one kind: --set teacher.runtime=auto goes on with it as it was begun",
        )


def _fill(
    bank: Bank | None,
    teacher: Trained | OnnxTeacher,
    splits: Splits,
    recipe: Recipe,
    *,
    views: int,
    team: Team,
    forward: Forward,
) -> Iterator[Event]:
    keep_freed_memory(teacher.device)
    loader = Loader(splits.train, device=teacher.device, fill=splits.fill)
    count, dtype = len(splits.train), recipe.logits_dtype
    threads = recipe.teacher_threads
    width = len(teacher.classes) + pooled_features(recipe, teacher.recipe if isinstance(teacher, Trained) else None)
    first = team.broadcast(bank.info.views if bank else 0)
    if isinstance(teacher, Trained):
        compile_teacher(teacher, recipe.train, batches=(views - first) * -(-count // (team.world_size * _GPU_BATCH)))
    pieces, shown = (ChunkQueue(bank, views) if bank else None), None
    try:
        while True:
            piece = team.broadcast((yield from pieces.take()) if pieces else None)
            if piece is None:
                return
            if shown is None or shown[0] != piece.number:
                drawn = planned_view(recipe.augment, n=count, image_size=recipe.data.side, number=piece.number)
                shown = piece.number, drawn
            view = shown[1]
            rows = piece.end - piece.start
            start, end = (piece.start + at for at in shard_bounds(team, rows))
            answers = torch.empty((end - start, width), dtype=getattr(torch, dtype))
            done = 0
            for logits in _answers(
                loader, teacher, view, dtype, np.arange(start, end), threads=threads, forward=forward
            ):
                answers[done : done + len(logits)] = logits
                done += len(logits)
                yield StageProgress(_STAGE, piece.behind + min(done * team.world_size, rows), (views - first) * count)
            gathered = team.gather(answers, rows)
            if bank and pieces:
                bank.put(piece.number, piece.part, gathered.numpy(), view_checksum(view))
                pieces.let_go()
    finally:
        if pieces:
            pieces.let_go()


def _answers(
    loader: Loader,
    teacher: Trained | OnnxTeacher,
    view: View,
    dtype: str,
    order: np.ndarray,
    *,
    threads: int | None,
    forward: Forward,
    together: int = _TOGETHER,
) -> Iterator[Tensor]:
    """The answers to one view, checked and rounded, on the host.

    Args:
        together: Of so many batches a GPU's answers are looked at at once: each look waits for it.
    """
    together = 1 if teacher.device.type == "cpu" else together
    size = CPU_BATCH if teacher.device.type == "cpu" else _GPU_BATCH
    classes = len(teacher.classes)
    shown = np.zeros(len(loader), dtype=np.int64)
    held: list[Tensor] = []
    for batch in loader.epoch(order, view, shown, size, keep_all=True).batches():
        with using_threads(threads):
            held.append(ask(forward, batch.images, size=size))
        if len(held) == together:
            yield _checked(torch.cat(held), dtype, classes=classes, teacher=teacher.place)
            held.clear()
    if held:
        yield _checked(torch.cat(held), dtype, classes=classes, teacher=teacher.place)


def _checked(answers: Tensor, dtype: str, *, classes: int, teacher: str) -> Tensor:
    parts = [part for part in answers.split([classes, answers.shape[1] - classes], dim=1) if part.numel()]
    logits, *pooled = torch.stack([largest_of(part) for part in parts]).tolist()
    check_logits(logits, teacher=teacher, dtype=dtype)
    for largest in pooled:
        check_features(largest, teacher=teacher)
    return round_answers(answers, dtype, classes=classes).cpu()


def _described(teacher: Trained | OnnxTeacher, splits: Splits, recipe: Recipe) -> tuple[TeacherRecord, np.ndarray]:
    if isinstance(teacher, Trained):
        return _describe(teacher, splits)
    assessment = assess_classifier(teacher, splits, recipe.data)
    figures = replace(assessment.figures, size_mb=teacher.size_bytes / 1e6)
    return TeacherRecord(teacher.name, "", recipe.data.title, figures), assessment.logits  # a file has no recipe


def _describe(teacher: Trained, splits: Splits) -> tuple[TeacherRecord, np.ndarray]:
    """What ``compare`` shows of a teacher that is not there, and its logits on the test set."""
    assessment = assess_classifier(teacher, splits, teacher.recipe.data)
    side = teacher.normalize.input_size
    timings = measure_latency({"teacher": teacher.to_time()}, {"teacher": (3, side, side)}, device=teacher.device)
    cost, accuracy = model_cost(teacher.module, side).figures, assessment.figures
    figures = replace(
        accuracy,
        params=cost.params,
        gmacs=cost.gmacs,
        size_mb=cost.size_mb,
        latency_ms=timings["teacher"],
        latency_device=str(teacher.device),
        hardware=describe_device(teacher.device),
        threads=torch.get_num_threads(),
        **_validated(teacher.run),
    )
    recipe, trained_on = teacher.recipe, teacher.run.info.trained_on
    record = TeacherRecord(recipe.name, dump_recipe(recipe), recipe.data.title, figures, trained_on)
    return record, assessment.logits


def _validated(run: RunFolder) -> dict[str, Any]:
    """How good the teacher was on how many validation images, where its folder says so."""
    with suppress(RunError):
        top1, images = run.result("val_top1")["val_top1"], (run.info.data or {}).get("val")
        return {"val_top1": top1, "val_images": images if isinstance(images, int) else None}
    return {}


@dataclass(frozen=True)
class BuildCost:
    """What a bank will cost: seconds of asking, from a few timed batches, and bytes on disk."""

    seconds: float
    disk_bytes: int


def _seconds_per_image(sizes: Iterable[int]) -> float:
    """Of the second and third batch, as they come; a smaller one, at the end, is not warmed up and tells nothing.

    >>> _seconds_per_image([])
    0.0
    """
    began = time.perf_counter()
    took: list[tuple[int, float]] = []
    for size in itertools.islice(sizes, 3):
        took.append((size, time.perf_counter() - began))
        began = time.perf_counter()
    whole = [each for each in took[1:] if each[0] == took[0][0]] or took[:1]
    images = sum(size for size, _ in whole)
    return sum(seconds for _, seconds in whole) / images if images else 0.0


def estimate(
    teacher: Trained | OnnxTeacher, splits: Splits, recipe: Recipe, *, views: int, forward: Forward | None = None
) -> BuildCost:
    """Time two whole batches after one that warms up, and multiply; of fewer images the first batch is all there is."""
    loader = Loader(splits.train, device=teacher.device, fill=splits.fill)
    view = planned_view(recipe.augment, n=len(splits.train), image_size=recipe.data.side, number=0)
    threads = recipe.teacher_threads
    answers = _answers(
        loader,
        teacher,
        view,
        "float32",
        np.arange(len(loader)),
        threads=threads,
        forward=forward or teacher,
        together=1,
    )
    per_image = _seconds_per_image(len(logits) for logits in answers)
    count = len(splits.train)
    itemsize = np.dtype(recipe.logits_dtype).itemsize
    width = len(teacher.classes) + pooled_features(recipe, teacher.recipe if isinstance(teacher, Trained) else None)
    return BuildCost(per_image * count * views, count * views * width * itemsize)
