"""What machines do to a run, told in one line: disks, permissions, open files, memory, graphics cards.

Only what the operating system or a device refused is translated. A ``TypeError`` is a bug of distill's own and keeps
its traceback.
"""

from __future__ import annotations

import errno
import gc
import os
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from torch.nn import functional as F

from distill.devices import (
    autocast,
    channels_last,
    describe_device,
    deterministic_kernels,
    is_out_of_memory,
    resolve_precision,
    synchronize,
)
from distill.errors import DistillError, MissingError, OutOfMemoryError, PeerLostError, RunError, UsageError
from distill.models import build_model, without_weights
from distill.pipeline.context import Context
from distill.recipe import Recipe

__all__ = ["explain", "explained", "fitting_batch", "memory_hint", "on_this_machine"]

_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG)
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ENXIO, errno.ENODEV, getattr(errno, "ESTALE", errno.ENOENT))
_HINTS = (
    (_FULL, "free some space there, then repeat the command; what was there before is as it was"),
    ((errno.EACCES, errno.EPERM, errno.EROFS), "allow this user to read and write there, or choose another folder"),
    ((errno.EMFILE, errno.ENFILE), "allow more open files: ulimit -n 65536"),
    (_GONE, "restore it, or name another; was it moved or removed while the command ran?"),
)
_DEVICE_GONE = re.compile(
    r"CUDA-capable devices? (is|are) busy|no kernel image is available|CUDA driver version is insufficient"
    r"|no CUDA-capable device|Found no NVIDIA driver|device is lost|unspecified launch failure",
    re.IGNORECASE,
)
_NOT_ON_MPS = re.compile(r"'MPS' backend|\bMPS (device|framework|backend)\b|not .*supported on MPS|\bMPS:")
_OPERATOR = re.compile(r"'(aten::[\w.]+)'")
_PEER_GONE = re.compile(
    r"gloo/transport/|ncclRemoteError|remote process exited|communicator was aborted", re.IGNORECASE
)
_BROKEN_PIPE = (errno.EPIPE, errno.ESHUTDOWN)
_SPARE = 0.9  # of the free memory: what a probe leaves for the rest of a run


@contextmanager
def explained(memory: Callable[[], str | None] = lambda: None) -> Iterator[None]:
    """Turn what the machine refused inside the block into one line.

    Args:
        memory: Asked for a hint after memory ran out, when everything the block held is freed.

    Raises:
        OutOfMemoryError: Memory is exhausted.
        RunError: The disk is full, permission is missing ...
        MissingError: A file or a device is not, or no longer, there.
    """
    try:
        yield
    except Exception as error:
        explanation = explain(error)
        if explanation is None or explanation is error:
            raise
        if isinstance(explanation, OutOfMemoryError):
            _free(error)
            explanation = OutOfMemoryError(explanation.message, hint=memory() or explanation.hint)
        raise explanation from error


@contextmanager
def on_this_machine(device: torch.device, context: Context) -> Iterator[None]:
    """What every process of a run works in: deterministic kernels where asked for, failures of the machine told."""
    memory = partial(memory_hint, replace(context, device=device))
    with explained(memory), deterministic_kernels(device, context.recipe.train.deterministic):
        yield


def explain(error: BaseException) -> DistillError | None:
    """The one line for a failure of the machine; an error for users as it is; None for anything else."""
    if isinstance(error, DistillError):
        return error
    if isinstance(error, MemoryError):
        return OutOfMemoryError(f"out of memory: {error}" if str(error) else "out of memory", hint=_LESS)
    if isinstance(error, OSError):
        return _explain_system(error)
    if isinstance(error, RuntimeError):
        return _explain_device(error)
    if isinstance(error, ValueError) and "Expected more than 1 value per channel when training" in str(error):
        return UsageError(
            "batch norm cannot train on one image whose map is a single pixel: a step has no more",
            hint="--set train.batch_size=2 or more",
        )
    if isinstance(error, TypeError) and _NOT_ON_MPS.search(str(error)):  # how float64 is refused there
        return _not_on_mps(error)
    return None


_LESS = "a smaller batch takes less: --set train.batch_size=N; or end what else uses the memory"


def _explain_system(error: OSError) -> DistillError | None:
    if error.errno in _BROKEN_PIPE:  # whoever read our output has left; that is no failure
        return None
    if error.errno == errno.ENOMEM:
        return OutOfMemoryError(f"out of memory: {error}", hint=_LESS)
    # Libraries raise OSError with a text alone; a bug of ours would not be one.
    reason = (error.strerror or str(error) or type(error).__name__).splitlines()[0]
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    where = " -> ".join(names)
    hint = next((hint for numbers, hint in _HINTS if error.errno in numbers), None)
    kind = MissingError if error.errno in _GONE else RunError
    return kind(f"{where}: {reason}" if where else reason, hint=hint)


def _explain_device(error: RuntimeError) -> DistillError | None:
    line = next((line for line in str(error).splitlines() if line.strip()), "")
    if is_out_of_memory(error):
        return OutOfMemoryError(
            _short(line) if "out of memory" in line else f"out of memory: {_short(line)}", hint=_LESS
        )
    if _DEVICE_GONE.search(str(error)):
        return MissingError(f"the device failed: {_short(line)}", hint="distill doctor; or --device cpu")
    if _NOT_ON_MPS.search(str(error)):
        return _not_on_mps(error)
    if "does not have a deterministic implementation" in str(error):
        return RunError(f"train.deterministic: {_short(line)}", hint="--set train.deterministic=false")
    if "Expected to have finished reduction in the prior iteration" in str(error):
        return RunError(
            "some weights of the network got no gradient in a step: several devices cannot train such a one",
            hint="leave out --devices, or what the loss does not use",
        )
    if _PEER_GONE.search(str(error)):
        return PeerLostError(
            "another process of this run is gone: the connection to it broke",
            hint="was it killed, or its machine out of memory? the last checkpoint is intact: go on with --resume",
        )
    return None


def _not_on_mps(error: BaseException) -> DistillError:
    """What Apple's GPU, or PyTorch for it, cannot do."""
    operator = _OPERATOR.search(str(error))
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    what = f"it has no {operator[1]}" if operator else re.split(r"(?<=[a-z])\. |\.$", line)[0]
    return MissingError(f"mps cannot run this: {what}", hint="--device cpu")


def _short(line: str) -> str:
    """What was asked for: what PyTorch says before and after it is about its own code."""
    text = re.sub(r"^\[enforce fail at [^\]]*\](\s*err == 0)?[\s.]*", "", line).strip()
    return re.split(r"\.? (?:GPU \d|Of the allocated|Error code|See doc|Use PYTORCH)", text)[0].rstrip(".")


def _free(error: BaseException) -> None:
    """Drop what the failed block still holds, by the frames of its traceback."""
    at: BaseException | None = error
    while at is not None:
        traceback.clear_frames(at.__traceback__)
        at = at.__context__
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


# A batch that fits


def memory_hint(context: Context) -> str | None:
    """What to do about a run whose memory ran out: a batch that was tried out and fits, and how to ask for it.

    ``train.batch_size`` is over all ``options.devices``: what is tried is one device's share of it.
    """
    recipe, devices = context.recipe, context.options.devices
    size = fitting_batch(recipe, context.device, devices=devices) if context.device.type == "cuda" else _half(recipe)
    if size is None:
        return f"not even one image of this network fits on {describe_device(context.device)}: a smaller one is needed"
    batch = recipe.train.batch_size
    if size >= batch:
        return "this batch fits on its own: end what else uses the memory (nvidia-smi), or lessen data and teacher"
    pieces = -(-batch // size) * recipe.train.accumulate
    over = f" over all {devices} devices" if devices > 1 else ""
    fits = f"a batch of {size}{over} fits" if context.device.type == "cuda" else "half the batch takes half the memory"
    hint = f"{fits}: --set train.batch_size={size}"
    if 2 * pieces * devices <= batch:  # none has less than two images
        hint += f"; or the same batch in pieces: --set train.accumulate={pieces}"
    if context.resume is None:
        return hint
    return f"{hint}; in a new run: --recipe {context.resume / 'recipe.yaml'}"


def _half(recipe: Recipe) -> int | None:
    return recipe.train.batch_size // 2 or None


def fitting_batch(recipe: Recipe, device: torch.device, *, devices: int = 1) -> int | None:
    """The largest of ``train.batch_size`` and its halves whose training step fits in what is free of a CUDA device.

    Args:
        devices: How many share a batch; each of them works through ``train.accumulate`` pieces of its share.
    """
    pieces = devices * recipe.train.accumulate
    whole = size = -(-recipe.train.batch_size // pieces)
    while size and not _fits(recipe, device, size):
        size //= 2
    return (recipe.train.batch_size if size == whole else size * pieces) if size else None


def _fits(recipe: Recipe, device: torch.device, size: int) -> bool:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    try:
        _try_step(recipe, device, size)
    except RuntimeError as error:
        if not isinstance(_explain_device(error), OutOfMemoryError):
            raise
        traceback.clear_frames(error.__traceback__)
        return False
    return torch.cuda.max_memory_allocated(device) <= _SPARE * free


def _try_step(recipe: Recipe, device: torch.device, size: int) -> None:
    """Forward and backward of ``size`` blank images, with room for gradients and two moments of an optimiser."""
    module = build_model(without_weights(recipe.model), num_classes=1000).to(device)
    module.train()
    moments = [torch.zeros_like(parameter) for parameter in module.parameters() for _ in range(2)]
    side = recipe.model.input_size
    images = torch.zeros((size, 3, side, side), device=device)
    if recipe.train.channels_last is True:
        module = channels_last(module)
        images = images.contiguous(memory_format=torch.channels_last)
    with autocast(device, resolve_precision(recipe.train.precision, device).name):
        logits = module(images)
    F.cross_entropy(logits.float(), torch.zeros(size, dtype=torch.long, device=device)).backward()
    synchronize(device)
    del moments
