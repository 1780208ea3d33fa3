"""distill, through the job and the loop that ``distill student`` runs, with what ``auto`` picks for the device."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from benchmarks.peers.setting import CLASSES, MEAN, STD, Setting
from distill.data.batches import steps_per_epoch
from distill.data.datasets import Dataset
from distill.data.images import Split
from distill.data.splits import Splits
from distill.devices import PrecisionName, fabric_precision, keep_freed_memory, resolve_precision
from distill.evaluation.assess import split_content
from distill.events import EpochDone, Event
from distill.fingerprint import state_sha256
from distill.models import Normalize
from distill.models.trained import Trained, classify_in_full
from distill.pipeline.build import build_job, build_network
from distill.pipeline.context import Context, Options
from distill.pipeline.objective import find_objective
from distill.pipeline.resolve import resolve_auto
from distill.pipeline.source import OpenedTeacher
from distill.pipeline.threads import ProcessLayout
from distill.recipe import Recipe
from distill.results.figures import Figures
from distill.runs import RunFolder
from distill.teaching.bank import Bank
from distill.teaching.bank_info import TeacherRecord
from distill.teaching.build import fill_bank, new_bank
from distill.teaching.identity import identity_of
from distill.teaching.key import bank_key
from distill.teaching.live import LiveTeacher, compile_teacher
from distill.teaching.objective import TeacherSource
from distill.teaching.runtime import forward_through
from distill.teaching.stored import StoredTeacher
from distill.train.loop import fit

__all__ = ["BankBuild", "Ours"]


@dataclass(frozen=True)
class BankBuild:
    """What storing one view of every image took."""

    images: int
    cpu_s: float
    wall_s: float


class Ours:
    """A student that distill trains, its teacher asked live or read from a bank that is built first."""

    def __init__(self, setting: Setting, *, logits: str) -> None:
        self.setting = setting
        self.device = torch.device(setting.device)
        self.splits = _splits(setting)
        self.recipe, self.choices = self._resolved()
        self.teacher = self._trained()
        self.bank: Bank | None = None
        self.forward = forward_through(
            self.teacher, self.recipe.teacher_runtime, threads=1
        )  # an export: before any meter runs
        if logits == "live":
            train, spec = self.recipe.train, self.recipe.teacher
            assert spec is not None, "a student has one"
            steps = train.epochs * steps_per_epoch(len(self.splits.train), train.batch_size)
            compile_teacher(self.teacher, train, batches=steps)
            self.source: TeacherSource = LiveTeacher(self.teacher, logits_dtype=spec.logits_dtype, forward=self.forward)

    def _resolved(self) -> tuple[Recipe, dict[str, Any]]:
        single = ProcessLayout(threads=1)
        return resolve_auto(self.setting.recipe, self.device, self.splits, lambda event: None, layout=single)

    @property
    def precision(self) -> PrecisionName:
        """What the student is trained in."""
        return resolve_precision(self.recipe.train.precision, self.device).name

    def _trained(self) -> Trained:
        module = self.setting.build_teacher()
        precision = self.setting.asked_in if self.device.type == "cpu" else self.precision
        if precision != "fp32":
            classify_in_full(module)
        return Trained(
            run=RunFolder(Path("teacher")),
            recipe=self.setting.teacher_recipe,
            module=module.to(self.device).to(memory_format=torch.channels_last),
            normalize=Normalize(MEAN, STD, input_size=32),
            classes=self.splits.dataset.classes,
            sha256=state_sha256(module.state_dict()),
            device=self.device,
            precision=precision,
        )

    def fill_bank(self, folder: Path) -> Iterator[Event]:
        """Ask about one view of all images and store it, as ``distill cache build`` does; then teach from it.

        What that command measures of a teacher besides (accuracy, latency) does not grow with the views: left out.
        """
        key = bank_key(self.recipe, self.splits, identity_of(self.teacher))
        bank = new_bank(folder, key, self.splits, self.recipe, self.device)
        teacher = TeacherRecord("teacher", "", "", Figures(test_content=split_content(self.splits)))
        bank.set_teacher(teacher, np.zeros((1, CLASSES), dtype=np.float32))
        yield from fill_bank(bank, self.teacher, self.splits, self.recipe, views=1, forward=self.forward)
        self.source = StoredTeacher(Bank.open(folder), device=self.device, views=1)

    def epochs(self) -> Iterator[float]:
        """Train; each epoch hands over its mean loss when it ends."""
        with tempfile.TemporaryDirectory() as folder:
            fabric = Fabric(accelerator=self.device.type, devices=1, precision=fabric_precision(self.precision))
            context = Context(self.recipe, Options(), self.device, params=0, splits=self.splits)
            source = OpenedTeacher(self.source, {"run": "teacher"})
            job = build_job(
                fabric,
                context,
                self.splits,
                source,
                module=build_network(context, self.splits),
                objective=find_objective(self.recipe, self.splits, None),
                path=Path(folder),
                saves=False,
            )
            job.module.load_state_dict(self.setting.build_student().state_dict())
            for event in fit(job, fabric):
                if isinstance(event, EpochDone):
                    yield event.metrics["train_loss"]

    def teacher_is_unchanged(self) -> bool:
        """Whether its weights and buffers still are what they were."""
        return state_sha256(self.teacher.module.state_dict()) == self.teacher.sha256


def _splits(setting: Setting) -> Splits:
    planes = np.ascontiguousarray(setting.pixels.transpose(0, 3, 1, 2))
    train = Split(planes, setting.labels)
    few = Split(planes[:1], setting.labels[:1])
    classes = tuple(f"class {number}" for number in range(CLASSES))
    data = Dataset("cifar10", classes, train, None, few, "", mean=MEAN, std=STD)
    return Splits(data, train, None, few, "benchmark", np.arange(len(train)))


def prepare_process(device: str) -> None:
    """What a run of distill does to its process."""
    keep_freed_memory(torch.device(device))
