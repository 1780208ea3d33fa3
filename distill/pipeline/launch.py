"""One process or several: the same worker runs in each, through lightning-fabric."""

from __future__ import annotations

import inspect
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import ClusterEnvironment, LightningEnvironment, TorchElasticEnvironment
from lightning_fabric.strategies import DDPStrategy
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from distill.devices import fabric_precision, resolve_precision, set_threads, threads_at_most, using_threads
from distill.pipeline.context import Context, without_splits
from distill.team.guard import guarding
from distill.team.processes import run_processes
from distill.team.ranks import local_process_count, process_count, under_torchrun

__all__ = ["launch"]

Worker = Callable[[Fabric, Context], Any]

# The others wait while the first process builds a bank or validates, which may take days. A process that died is
# noticed by whoever started it, not by a timeout.
_PATIENCE = timedelta(days=7)
_DDP_OPTIONS = inspect.signature(DistributedDataParallel).parameters
_SYNC_BUFFERS = "forward_sync_buffers" if "forward_sync_buffers" in _DDP_OPTIONS else "broadcast_buffers"


def launch(worker: Worker, context: Context) -> Any:
    """Run ``worker(fabric, context)`` on every device and return what the first one returns.

    Under torchrun the processes are there already and each takes its place; else ``options.devices`` are started,
    and then ``worker`` and ``options.on_event`` must be picklable.

    Raises:
        DistillError: What a process raised, or that one of them died.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    with guarding():
        return _launch(worker, context)


def _launch(worker: Worker, context: Context) -> Any:
    if under_torchrun():
        with _stdout_is_stderr():
            return _take_place(worker, context)
    if context.options.devices == 1:
        with using_threads(context.recipe.train.thread_count):
            return worker(_fabric(context, devices=_one(context.device), strategy="auto"), context)
    with tempfile.TemporaryDirectory(prefix="distill-") as folder:
        meeting = Path(folder) / "meeting"
        return run_processes(_member, (meeting, worker, without_splits(context)), count=context.options.devices)


def _fabric(context: Context, *, devices: Any, strategy: Any, nodes: int = 1) -> Fabric:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on devices we chose on purpose
        return Fabric(
            accelerator=context.device.type,
            devices=devices,
            num_nodes=nodes,
            strategy=strategy,
            precision=fabric_precision(resolve_precision(context.recipe.train.precision, context.device).name),
        )


def _one(device: torch.device) -> Any:
    return [device.index or 0] if device.type == "cuda" else 1


def _ddp(context: Context, environment: ClusterEnvironment, *, count: int) -> DDPStrategy:
    """DDP as this project wants it.

    Batch norm's statistics are each rank's own and the first rank's are saved: nobody sends them at every step.
    DDP looks for parameters without gradients where a backbone is frozen at first, and on the CPU with three ranks or
    more: otherwise it rearranges its buckets after the first step, the ranks' gradients are then added up in another
    order, and a resumed run would differ from one that never stopped in the last bits.
    """
    keeps_buckets = context.device.type == "cpu" and count > 2
    options: dict[str, Any] = {
        "find_unused_parameters": keeps_buckets or context.recipe.train.freeze_backbone_epochs > 0,
        _SYNC_BUFFERS: False,
    }
    return DDPStrategy(cluster_environment=environment, timeout=_PATIENCE, **options)


# Processes that torchrun started


def _take_place(worker: Worker, context: Context) -> Any:
    here = local_process_count()
    count = process_count()
    ddp = _ddp(context, TorchElasticEnvironment(), count=count)
    fabric = _fabric(context, devices=here, strategy=ddp, nodes=count // here)
    fabric.launch()
    set_threads(_threads(context))  # Fabric has set its own
    result = worker(fabric, replace(context, device=fabric.device))
    _leave()
    return result


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
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0"}  # what a cluster's scheduler set is not about us
    if context.device.type == "cuda":
        torch.cuda.set_device(rank)
    # Met in a file, not at a port that another program may have taken meanwhile; Fabric uses the group it finds.
    backend = distributed.Backend.default_device_backend_map[context.device.type]
    distributed.init_process_group(
        backend, init_method=meeting.as_uri(), rank=rank, world_size=count, timeout=_PATIENCE
    )
    fabric = _fabric(context, devices=count, strategy=_ddp(context, LightningEnvironment(), count=count))
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
