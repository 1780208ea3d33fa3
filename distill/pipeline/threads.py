"""How many threads train a network and ask its teacher: what was named, or what the work of their layers is worth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from distill.devices import MACS_A_THREAD, threads_at_most, threads_for
from distill.evaluation.cost import model_cost
from distill.models import meta_model
from distill.models.fixed_batch import CPU_BATCH
from distill.recipe import Recipe
from distill.recipe.model_specs import ModelSpec
from distill.recipe.schema import TeacherSpec
from distill.runs import RunFolder

__all__ = ["ProcessLayout", "Threads", "teacher_threads", "training_threads"]


@dataclass(frozen=True)
class ProcessLayout:
    """The processes that will share the work.

    Attributes:
        count: How many, on all machines.
        here: How many on this machine.
        threads: CPU threads of each, where the user named them.
    """

    count: int = 1
    here: int = 1
    threads: int | None = None


@dataclass(frozen=True)
class Threads:
    """A number of threads; ``why`` is None where it was named."""

    count: int
    why: str | None = None


def training_threads(recipe: Recipe, device: torch.device, *, classes: int, layout: ProcessLayout) -> Threads:
    """What each process of a run computes one operation with."""
    named = layout.threads or recipe.train.thread_count
    if named is not None:
        return Threads(named)
    batch = max(1, recipe.train.batch_size // (layout.count * recipe.train.accumulate))
    return _worth(recipe.model, classes, batch, device, layout)


def teacher_threads(teacher: TeacherSpec, device: torch.device, *, classes: int, layout: ProcessLayout) -> Threads:
    """What the teacher is asked with; its answers are the same from a bank and live, so both count on this."""
    named = layout.threads or teacher.thread_count
    if named is not None:
        return Threads(named)
    model = None if teacher.run is None else RunFolder(Path(teacher.run)).recipe().model
    return _worth(model, classes, CPU_BATCH, device, layout)


def _worth(model: ModelSpec | None, classes: int, batch: int, device: torch.device, layout: ProcessLayout) -> Threads:
    most = threads_at_most(layout.here)
    if model is None or device.type != "cpu":
        return Threads(most, "as many as torch takes")
    macs = _macs_a_layer(model, classes) * batch
    rule = f"a thread for each {MACS_A_THREAD / 1e6:.0f} million, {most} at most"
    return Threads(
        threads_for(macs, at_most=most), f"{macs / 1e6:,.3g} million multiply-accumulates a layer and batch, {rule}"
    )


def _macs_a_layer(spec: ModelSpec, classes: int) -> float:
    """Multiply-accumulates of one image's forward pass, over the layers that have any."""
    cost = model_cost(meta_model(spec, classes), spec.input_size)
    return cost.macs / max(1, sum(layer.macs > 0 for layer in cost.layers))
