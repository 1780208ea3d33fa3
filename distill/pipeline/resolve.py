"""What every ``auto`` of a recipe's model and training becomes on one machine, and why."""

from __future__ import annotations

from typing import Any

import torch

from distill.data.splits import Splits
from distill.data.views import views_of
from distill.devices import UnsafeLayer, resolve_precision, unsafe_layers, why_not_compile
from distill.errors import MissingError, UsageError
from distill.events import Note, Tell
from distill.models import build_normalize, meta_model, resolved_model
from distill.pipeline.precision import training_precision
from distill.pipeline.threads import ProcessLayout, Threads, teacher_threads, training_threads
from distill.recipe import Recipe
from distill.recipe.schema import TrainSpec

__all__ = ["resolve_auto", "resolve_train"]


def resolve_auto(
    recipe: Recipe, device: torch.device, splits: Splits, tell: Tell, *, layout: ProcessLayout | None = None
) -> tuple[Recipe, dict[str, Any]]:
    """The recipe with every ``auto`` of its model and training decided, and what was decided.

    Raises:
        UsageError: ``train.channels_last: true`` on a CPU, for a network that would reach a wrong kernel.
    """
    classes, layout = len(splits.dataset.classes), layout or ProcessLayout()
    train, choices = resolve_train(recipe, device, num_classes=classes, tell=tell, layout=layout)
    teacher = recipe.teacher
    if teacher is not None:
        asking = teacher_threads(teacher, device, classes=classes, layout=layout)
        teacher = _copy(teacher, threads=asking.count)
        choices |= _choice("teacher.threads", asking)
        if (warning := resolve_precision(teacher.precision, device, key="teacher.precision").warning) is not None:
            tell(Note(warning, "warning"))
    normalize = build_normalize(recipe.model, mean=splits.dataset.mean, std=splits.dataset.std)
    augment = recipe.augment
    if augment.views is None:
        augment = _copy(augment, views=views_of(augment, train.epochs))
    model = resolved_model(recipe.model, normalize)
    return _copy(recipe, train=train, model=model, augment=augment, teacher=teacher), choices


def resolve_train(
    recipe: Recipe, device: torch.device, *, num_classes: int, tell: Tell, layout: ProcessLayout | None = None
) -> tuple[TrainSpec, dict[str, Any]]:
    """The recipe's ``train:`` with every ``auto`` decided, and what was decided; no data is needed.

    Raises:
        UsageError: ``train.channels_last: true`` on a CPU, for a network that would reach a wrong kernel; rounded
            weights on MPS.
        MissingError: ``train.compile`` was asked for, and there is no compiler.
    """
    precision = training_precision(recipe, device, classes=num_classes)
    if precision.warning:
        tell(Note(precision.warning, "warning"))
    train = recipe.train
    if device.type == "mps" and train.fake_quantize is not None:  # PyTorch has no such kernels there
        raise UsageError("train.fake_quantize cannot be had on mps", hint="--device cpu")
    compile_mode, why_not = _compile_mode(recipe, device, several=(layout or ProcessLayout()).count > 1)
    unsafe = unsafe_layers(meta_model(recipe.model, num_classes), device)
    channels_last = _channels_last(recipe, device, unsafe)
    choices = {
        f"train.{key}": resolved
        for key, wanted, resolved in (
            ("precision", train.precision, precision.name),
            ("channels_last", train.channels_last, channels_last),
            ("compile", train.compile, compile_mode),
        )
        if wanted == "auto"
    }
    if precision.why is not None:
        choices["train.precision_why"] = precision.why
        if precision.name == "bf16":
            tell(Note(f"trains in bf16: {precision.why} (for fp32: --set train.precision=fp32)"))
    if why_not is not None:
        choices["train.compile_why"] = why_not
        tell(Note(f"runs uncompiled: {why_not}"))
    if unsafe:
        choices["train.channels_last_why"] = _why_contiguous(unsafe)
        tell(Note(_told(unsafe, compiles=compile_mode is not False)))
    threads = training_threads(recipe, device, classes=num_classes, layout=layout or ProcessLayout())
    resolved = {"precision": precision.name, "channels_last": channels_last, "compile": compile_mode}
    return _copy(train, threads=threads.count, **resolved), choices | _choice("train.threads", threads)


def _choice(key: str, threads: Threads) -> dict[str, Any]:
    return {} if threads.why is None else {key: threads.count, f"{key}_why": threads.why}


def _compile_mode(recipe: Recipe, device: torch.device, *, several: bool) -> tuple[Any, str | None]:
    """The mode, and why a device that would compile by default does not.

    Raises:
        MissingError: Compiling was asked for, and something that it takes is not here.
        UsageError: It was asked for together with ``sync_batchnorm`` on several devices.
    """
    wanted = recipe.train.compile
    if wanted is False or (wanted == "auto" and device.type != "cuda"):
        return False, None
    # its statistics wait for the other devices in the middle of every graph
    synchronised = recipe.train.sync_batchnorm and several
    why_not = "train.sync_batchnorm breaks compiled graphs" if synchronised else None
    if why_not is not None and wanted != "auto":
        raise UsageError(f"train.compile: {why_not}", hint="--set train.compile=false, or train.sync_batchnorm=false")
    why_not = why_not or why_not_compile(device)
    if why_not is not None and wanted != "auto":
        raise MissingError(f"train.compile: {why_not}", hint="install it, or --set train.compile=false")
    return (False, why_not) if why_not is not None else ("default" if wanted in (True, "auto") else wanted, None)


def _channels_last(recipe: Recipe, device: torch.device, unsafe: tuple[UnsafeLayer, ...]) -> bool:
    wanted = recipe.train.channels_last
    if wanted == "auto":
        return device.type != "mps" and not unsafe
    if wanted and unsafe:
        raise UsageError(
            f"train.channels_last: true cannot be had on a CPU: {_why_contiguous(unsafe)}",
            hint="--set train.channels_last=auto keeps the images contiguous; a run whose recipe.yaml has true learned "
            "from wrong gradients: train it anew from that file, with auto",
        )
    return wanted


def _why_contiguous(unsafe: tuple[UnsafeLayer, ...]) -> str:
    first, more = unsafe[0], f" and {len(unsafe) - 1} more" if len(unsafe) > 1 else ""
    return f"layer {first}{more}: {first.kernel.what} in channels-last ({first.kernel.report})"


def _told(unsafe: tuple[UnsafeLayer, ...], *, compiles: bool) -> str:
    how = "images stay contiguous" + (", compiled without inductor's layout optimization" if compiles else "")
    return f"{how}: {_why_contiguous(unsafe)}"


def _copy(spec: Any, **changes: Any) -> Any:
    return spec.model_copy(update=changes)
