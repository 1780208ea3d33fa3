"""Build everything, run a few steps, and say what the run would take. No folder is made."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from distill.data.splits import Splits
from distill.devices import synchronize
from distill.errors import MissingError
from distill.evaluation.cost import spec_cost
from distill.events import Note, StepDone
from distill.models.weights import without_weights
from distill.pipeline.build import build_job, build_network
from distill.pipeline.context import Context, Options, prepare
from distill.pipeline.ensemble import first_member
from distill.pipeline.failures import on_this_machine
from distill.pipeline.image_size import resolve_image_size
from distill.pipeline.launch import launch
from distill.pipeline.objective import find_objective
from distill.pipeline.source import OpenedTeacher, find_teacher, open_live, open_source
from distill.pipeline.teacher import resolve_teacher
from distill.pipeline.teacher_settings import resolve_teacher_settings
from distill.recipe import Recipe, load_recipe
from distill.recipe.model_specs import TimmModel
from distill.results.rows import DryRun
from distill.team.watch import watching
from distill.train.loop import fit

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["dry_run"]

_STEPS = 3  # the first one warms up


def dry_run(recipe: Recipe | str | Path, *, teacher: Any = None, options: Options | None = None) -> DryRun:
    """Report the shapes, parameters, memory and estimated time of a run, from three real steps.

    A teacher is run live; a bank that is named is read.

    Example:
        >>> dry_run("quickstart_student", teacher="quickstart_teacher").params
        1506
    """
    options = options or Options()
    recipe = resolve_teacher(load_recipe(recipe), runs_dir=options.runs_dir, override=teacher)
    if first_member(recipe) is not recipe:
        recipe = resolve_image_size(recipe, runs_dir=options.runs_dir, tell=options.tell)  # what all are asked about
        options.tell(Note("of several teachers a dry run asks the first one, live"))
        recipe = first_member(recipe)
    return launch(_worker, prepare(recipe, replace(options, devices=1)))


def _worker(fabric: Fabric, context: Context) -> DryRun:
    with watching(), on_this_machine(fabric.device, context):
        return _try_out(fabric, context)


def _try_out(fabric: Fabric, context: Context) -> DryRun:
    recipe, splits = context.recipe, context.splits
    assert splits is not None, "a dry run has one process"
    source = None
    teacher = find_teacher(
        recipe, runs_dir=context.options.runs_dir, device=fabric.device, classes=splits.dataset.classes
    )
    objective = find_objective(recipe, splits, teacher)
    if recipe.teacher is not None:
        recipe, _ = resolve_teacher_settings(recipe, splits, teacher, objective.requires)
        if teacher is not None:
            source = open_live(recipe, teacher, objective.requires)
        else:  # of banks that are named
            tell = context.options.tell
            source = open_source(recipe, splits, None, requires=objective.requires, device=fabric.device, tell=tell)
    module = _network(context, splits)
    path = context.options.runs_dir / recipe.name
    job = build_job(fabric, context, splits, source, module=module, path=path, saves=False, objective=objective)
    marks, steps_per_epoch = [], 0
    for event in fit(job, fabric):
        if isinstance(event, StepDone):
            synchronize(fabric.device)
            marks.append(time.perf_counter())
            if len(marks) == _STEPS:
                break
        steps_per_epoch = getattr(event, "steps_per_epoch", steps_per_epoch)
    seconds_per_step = (marks[-1] - marks[0]) / (len(marks) - 1) if len(marks) > 1 else None
    stores = teacher is not None and recipe.teacher is not None and recipe.teacher.logits == "bank"
    return _report(context, splits, source, steps_per_epoch, seconds_per_step, stores=stores)


def _network(context: Context, splits: Splits) -> nn.Module:
    """The network; untrained where its pretrained weights cannot be fetched, which costs the same."""
    try:
        return build_network(context, splits)
    except MissingError as error:
        model = context.recipe.model
        if not (isinstance(model, TimmModel) and model.weights == "pretrained"):
            raise
        wants = f"; the run itself needs them: {error.hint}" if error.hint else ""
        context.options.tell(Note(f"{error.message}: tried untrained, which takes as long{wants}"))
        recipe = context.recipe.model_copy(update={"model": without_weights(model)})
        return build_network(replace(context, recipe=recipe), splits)


def _report(
    context: Context,
    splits: Splits,
    source: OpenedTeacher | None,
    steps: int,
    seconds_per_step: float | None,
    *,
    stores: bool,
) -> DryRun:
    """What was found; ``stores``: the run itself keeps the answers of a teacher that was asked live here."""
    recipe, device = context.recipe, context.device
    classes = len(splits.dataset.classes)
    side = recipe.model.input_size
    batch = min(recipe.train.batch_size, len(splits.train))
    total = None if seconds_per_step is None else seconds_per_step * steps * recipe.train.epochs
    return DryRun(
        name=recipe.name,
        role=recipe.role,
        dataset=recipe.data.title,
        device=str(device),
        precision=recipe.train.precision,
        train_images=len(splits.train),
        val_images=0 if splits.val is None else len(splits.val),
        input_shape=(batch, 3, side, side),
        output_shape=(batch, classes),
        params=context.params,
        max_params=recipe.max_params,
        gmacs=spec_cost(recipe.model, classes).macs / 1e9,
        steps_per_epoch=steps,
        epochs=recipe.train.epochs,
        memory_mb=_memory_mb(device),
        seconds_per_step=seconds_per_step,
        seconds=total,
        teacher=None if source is None else source.about["run"] or source.about.get("onnx") or source.about["name"],
        notes=(
            "time is of training steps; validation and saving come on top",
            *(["the teacher was asked in every step; a run with its answers in a bank takes less"] if stores else []),
        ),
    )


def _memory_mb(device: torch.device) -> float | None:
    """Peak of the device, or of this process; None where the system does not say (Windows)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3  # bytes there, kilobytes elsewhere
