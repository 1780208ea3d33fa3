"""One process or several: the same worker runs in each, through lightning-fabric."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy

from distill import errors as errors_module
from distill.devices import fabric_precision, set_threads
from distill.errors import DistillError, RunError
from distill.pipeline.context import Context, without_splits

__all__ = ["launch"]

Worker = Callable[[Fabric, Context], Any]


def launch(worker: Worker, context: Context) -> Any:
    """Run ``worker(fabric, context)`` on every device and return what the first one returns.

    Under torchrun the processes are there already and each takes its place; else ``options.devices`` are started.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    if _under_torchrun():
        fabric = _fabric(context, devices=int(os.environ["LOCAL_WORLD_SIZE"]), strategy=_ddp(context, "subprocess_script"))
        fabric.launch()
        return worker(fabric, context)
    if context.options.devices == 1:
        return worker(_fabric(context, devices=_one(context.device), strategy="auto"), context)
    return _spawn(worker, context)


def _fabric(context: Context, *, devices: Any, strategy: Any) -> Fabric:
    nodes = 1
    if _under_torchrun():
        nodes = int(os.environ["WORLD_SIZE"]) // int(os.environ["LOCAL_WORLD_SIZE"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on devices we chose on purpose
        return Fabric(
            accelerator=context.device.type,
            devices=devices,
            num_nodes=nodes,
            strategy=strategy,
            precision=fabric_precision(context.recipe.train.precision),
        )


def _one(device: torch.device) -> Any:
    return [device.index or 0] if device.type == "cuda" else 1


def _under_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ and "LOCAL_WORLD_SIZE" in os.environ


def _ddp(context: Context, start: str) -> DDPStrategy:
    """A frozen backbone has parameters without gradients, which DDP must be told to look for."""
    frozen = context.recipe.train.freeze_backbone_epochs > 0
    return DDPStrategy(start_method=start, find_unused_parameters=frozen) if start == "spawn" else DDPStrategy(
        find_unused_parameters=frozen
    )


def _spawn(worker: Worker, context: Context) -> Any:
    with tempfile.TemporaryDirectory(prefix="distill-") as folder:
        errors = Path(folder) / "error.json"
        fabric = _fabric(context, devices=context.options.devices, strategy=_ddp(context, "spawn"))
        try:
            return fabric.launch(_guarded, worker, without_splits(context), str(errors), torch.get_num_threads())
        except torch.multiprocessing.ProcessRaisedException:
            if errors.is_file():
                raise _told(errors) from None
            raise
        except torch.multiprocessing.ProcessExitedException as error:
            raise RunError(f"a training process ended: {error}", hint="was it killed, or out of memory?") from error


def _guarded(fabric: Fabric, worker: Worker, context: Context, errors: str, threads: int) -> Any:
    """In a process of its own: an error for the user travels home whole."""
    set_threads(threads)
    try:
        return worker(fabric, replace(context, device=fabric.device))
    except DistillError as error:
        if fabric.is_global_zero:
            told = {"kind": type(error).__name__, "message": error.message, "hint": error.hint}
            Path(errors).write_text(json.dumps(told))
        raise


def _told(path: Path) -> DistillError:
    """The error that a child process wrote down."""
    told = json.loads(path.read_text())
    return getattr(errors_module, told["kind"])(told["message"], hint=told["hint"])
