"""Run as a script: train each case on two processes of one group, and write down where (see test_devices.py).

The arguments are a folder, and a teacher's run; or ``killed``, to see a process die.

A script, because started processes import what they run by name; one group, because starting one takes seconds.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from distill.data.splits import load_splits
from distill.errors import DistillError
from distill.events import Event, StepDone
from distill.fingerprint import state_sha256
from distill.pipeline import Options
from distill.pipeline.build import build_job, build_network
from distill.pipeline.context import Context, prepare
from distill.pipeline.launch import launch
from distill.pipeline.objective import find_objective
from distill.pipeline.teacher import resolve_teacher
from distill.pipeline.worker import train_worker
from distill.recipe import parse_recipe
from distill.runs import list_runs
from distill.team.consensus import Consensus
from distill.team.shares import Distributed
from distill.train.loop import fit

BASE = """
schema_version: 1
name: tiny
role: baseline
data: {name: synthetic, limit: 150, test_limit: 60}
augment: {crop_padding: 2, hflip: 0.5}
model: {source: students, name: tiny, norm: false}
optim: {name: sgd, lr: 0.5}
train: {epochs: 2, batch_size: 32, seed: 3}
"""
TAUGHT = (
    "role=student",
    "objective={kind: kd, ce_weight: 0.5, kd_weight: 0.5, temperature: 2.0}",
)

# 135 images in batches of 32: the last batch has 7, which two processes share as 4 and 3.
SAME_AS_ONE = {
    "plain": (),
    "odd batches": ("train.batch_size=31",),
    "accumulate": ("train.accumulate=3",),
    "clip_norm": ("train.clip_norm=0.05",),
    "adam, one cycle": ("optim={name: adam, lr: 0.01}", "schedule={kind: one_cycle}"),
    "ema": ("train.ema=0.9",),
    "mixup and cutmix": ("augment.mixup={alpha: 0.4}", "augment.cutmix={alpha: 1.0, probability: 0.5}"),
    "label smoothing, zero padding": ("train.label_smoothing=0.1", "augment.crop_fill=zero"),
    "live teacher": (*TAUGHT, "teacher={run: TEACHER, logits: live, logits_dtype: float32}"),
    "bank": (*TAUGHT, "teacher={run: TEACHER, logits: bank, logits_dtype: float32}", "augment.view_seed=4"),
}
RESUMED = {
    "dropout": ("model.dropout=0.3", "train.epochs=3"),
    "batch norm, ema": ("model.norm=true", "train.ema=0.9", "train.epochs=3", "train.accumulate=2"),
}


@dataclass
class StopAt:
    """Sends SIGTERM to the first process alone."""

    epoch: int
    step: int

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone) and (event.epoch, event.step) == (self.epoch, self.step):
            os.kill(os.getpid(), signal.SIGTERM)


def case(name: str, settings: tuple[str, ...], *, teacher: str, options: Options) -> Context:
    """A case that can begin."""
    settings = tuple(each.replace("TEACHER", f"'{teacher}'") for each in settings)
    recipe = parse_recipe(BASE, source=name, overrides=settings)
    return prepare(resolve_teacher(recipe, runs_dir=options.runs_dir, override=None), options)


def train_all(fabric: Fabric, context: Context, *, teacher: str) -> dict[str, Any]:
    """In every process: all cases, one after the other."""
    options = replace(context.options, devices=1)
    found: dict[str, Any] = {"same": {}, "resumed": {}}
    for name, settings in SAME_AS_ONE.items():
        found["same"][name] = str(train_worker(fabric, case(name, settings, teacher=teacher, options=options)).run)
    for name, settings in RESUMED.items():
        found["resumed"][name] = _resumed(fabric, case(name, settings, teacher=teacher, options=options))
    found["digests"] = _digests(fabric, context)
    found["not finite"] = _error(fabric, case("broken", ("optim.lr=1e9",), teacher=teacher, options=options))
    return found


def _resumed(fabric: Fabric, context: Context) -> dict[str, Any]:
    whole = train_worker(fabric, context).run
    stopper = StopAt(1, 2) if fabric.is_global_zero else None
    error = _error(fabric, replace(context, options=replace(context.options, on_event=stopper)))
    run = whole.with_name(f"{int(whole.name) + 1:03d}")
    train_worker(fabric, replace(context, resume=run))
    return {"whole": str(whole), "error": error, "run": str(run)}


def _error(fabric: Fabric, context: Context) -> list[str]:
    """What each process raised."""
    try:
        train_worker(fabric, context)
        told = "nothing"
    except DistillError as error:
        told = f"{type(error).__name__}: {error.message}"
    return Consensus(Distributed(fabric)).gather(told)


def _digests(fabric: Fabric, context: Context) -> list[str]:
    """Of each process's weights and buffers, batch norm's among them, and dropout in each one its own."""
    settings = ("model.norm=true", "model.dropout=0.2", "train.freeze_backbone_epochs=1")
    context = case("whole", settings, teacher="", options=replace(context.options, devices=1))
    splits = load_splits(context.recipe.data)
    module = build_network(context, splits)
    objective = find_objective(context.recipe, splits, None)
    job = build_job(
        fabric, context, splits, None, module=module, objective=objective, path=Path("nowhere"), saves=False
    )
    for _ in fit(job, fabric):
        pass
    return Consensus(Distributed(fabric)).gather(state_sha256(job.module.state_dict()))


def die(fabric: Fabric, context: Context) -> None:
    """The second process is killed; the first one waits for it."""
    if fabric.global_rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    fabric.barrier()


def main(folder: Path, teacher: str) -> None:
    options = Options(runs_dir=folder / "runs", device="cpu", devices=2, threads=1)
    # Freezing among the cases: the group must look for parameters without gradients.
    context = case("group", ("train.freeze_backbone_epochs=1",), teacher=teacher, options=options)
    if teacher == "killed":
        launch(die, context)
    found = launch(partial(train_all, teacher=teacher), context)
    found["runs"] = len(list_runs(folder / "runs"))
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
