"""One process or several: the same worker runs in each, through lightning-fabric."""

from __future__ import annotations

import atexit
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed

from distill.devices import set_threads, threads_at_most, using_threads
from distill.pipeline.context import Context, without_splits
from distill.team.guard import guarding
from distill.team.processes import run_processes
from distill.team.ranks import local_process_count, process_count, under_torchrun
from distill.train.seeds import restore_generators, snapshot_generators

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["launch"]

Worker = Callable[["Fabric", Context], Any]


def launch(worker: Worker, context: Context) -> Any:
    """Run ``worker(fabric, context)`` on every device and return what the first one returns.

    Under torchrun the processes are there already and each takes its place; else ``options.devices`` are started,
    and then ``worker`` and ``options.on_event`` must be picklable.

    Raises:
        DistillError: What a process raised, or that one of them died.
    """
    with guarding():
        return _launch(worker, context)


def _launch(worker: Worker, context: Context) -> Any:
    from distill.pipeline.fabric import make_fabric  # seconds to import: after what can be wrong was found

    if under_torchrun():
        with _stdout_is_stderr():
            return _take_place(worker, context)
    if context.options.devices == 1:
        generators = snapshot_generators(context.device)
        try:
            with using_threads(context.recipe.train.thread_count):
                return worker(make_fabric(context, devices=_one(context.device), strategy="auto"), context)
        finally:  # the caller's generators, like its number of threads, are as they were
            restore_generators(generators, context.device)
    with tempfile.TemporaryDirectory(prefix="distill-") as folder:
        meeting = Path(folder) / "meeting"
        return run_processes(_member, (meeting, worker, without_splits(context)), count=context.options.devices)


def _one(device: torch.device) -> Any:
    return [device.index or 0] if device.type == "cuda" else 1


# Processes that torchrun started


def _take_place(worker: Worker, context: Context) -> Any:
    from distill.pipeline.fabric import TorchElasticEnvironment, ddp, make_fabric

    here = local_process_count()
    count = process_count()
    strategy = ddp(context, TorchElasticEnvironment(), count=count)
    fabric = make_fabric(context, devices=here, strategy=strategy, nodes=count // here)
    fabric.launch()
    set_threads(_threads(context))  # Fabric has set its own
    _leave_at_exit()
    return worker(fabric, replace(context, device=fabric.device))


@cache
def _leave_at_exit() -> None:
    """The group stays for the next launch: joined anew, its processes would look for each other where they were."""
    atexit.register(_leave)


@contextmanager
def _stdout_is_stderr() -> Iterator[None]:
    """Gloo prints greetings to stdout, which belongs to the command's result."""
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


# Processes that we start


def _member(rank: int, count: int, meeting: Path, worker: Worker, context: Context) -> Any:
    """In a process of its own: join the others, then work."""
    from distill.pipeline.fabric import PATIENCE, LightningEnvironment, ddp, make_fabric

    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0"}  # what a cluster's scheduler set is not about us
    if context.device.type == "cuda":
        torch.cuda.set_device(rank)
    # Met in a file, not at a port that another program may have taken meanwhile; Fabric uses the group it finds.
    backend = distributed.Backend.default_device_backend_map[context.device.type]
    distributed.init_process_group(backend, init_method=meeting.as_uri(), rank=rank, world_size=count, timeout=PATIENCE)
    fabric = make_fabric(context, devices=count, strategy=ddp(context, LightningEnvironment(), count=count))
    fabric.launch()
    # a run that goes on may have begun with fewer processes, and more threads for each
    set_threads(context.options.threads or min(_threads(context), threads_at_most(count)))
    options = context.options if rank == 0 else replace(context.options, on_event=None)
    result = worker(fabric, replace(context, device=fabric.device, options=options))
    _leave()
    return result


def _threads(context: Context) -> int:
    count = context.recipe.train.thread_count
    assert count is not None, "a context's recipe is resolved"
    return count


def _leave() -> None:
    """Say goodbye to the others in order; NCCL warns about those who do not."""
    if distributed.is_initialized():
        distributed.destroy_process_group()
