"""lightning-fabric, as a run sets it up. It takes a second and a half to import: ask for this module late."""

from __future__ import annotations

import inspect
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib.metadata import version
from types import ModuleType
from typing import Any

from torch.nn.parallel import DistributedDataParallel

from distill.devices import fabric_precision, resolve_precision
from distill.models.check import leaves_weights_unused
from distill.pipeline.context import Context

__all__ = ["PATIENCE", "LightningEnvironment", "TorchElasticEnvironment", "ddp", "make_fabric"]


@contextmanager
def _torchmetrics_by_its_version() -> Iterator[None]:
    """Show lightning-fabric torchmetrics' version alone.

    It imports torchmetrics, and that SciPy's statistics, to compare one number: a second and a half of CPU for nothing.
    """
    name = "torchmetrics"
    if name in sys.modules:
        yield
        return
    stand_in = ModuleType(name)
    stand_in.__dict__["__version__"] = version(name)
    sys.modules[name] = stand_in
    try:
        yield
    finally:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]


with _torchmetrics_by_its_version():
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments import ClusterEnvironment, LightningEnvironment, TorchElasticEnvironment
    from lightning_fabric.strategies import DDPStrategy

logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it sets its own level when it is imported

# The others wait while the first process builds a bank or validates, which may take days. A process that died is
# noticed by whoever started it, not by a timeout.
PATIENCE = timedelta(days=7)
_DDP_OPTIONS = inspect.signature(DistributedDataParallel).parameters
_SYNC_BUFFERS = "forward_sync_buffers" if "forward_sync_buffers" in _DDP_OPTIONS else "broadcast_buffers"


def make_fabric(context: Context, *, devices: Any, strategy: Any, nodes: int = 1) -> Fabric:
    """A Fabric for the run's device, precision and processes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on devices we chose on purpose
        return Fabric(
            accelerator=context.device.type,
            devices=devices,
            num_nodes=nodes,
            strategy=strategy,
            precision=fabric_precision(resolve_precision(context.recipe.train.precision, context.device).name),
        )


def ddp(context: Context, environment: ClusterEnvironment, *, count: int) -> DDPStrategy:
    """DDP as this project wants it.

    Batch norm's statistics are each rank's own and the first rank's are saved: nobody sends them at every step.
    DDP looks for parameters without gradients where a backbone is frozen at first, where the network has weights that
    its logits do not depend on (or nobody can tell), and on the CPU with three ranks or more: otherwise it rearranges
    its buckets after the first step, the ranks' gradients are then added up in another order, and a resumed run would
    differ from one that never stopped in the last bits.
    """
    keeps_buckets = context.device.type == "cpu" and count > 2
    options: dict[str, Any] = {
        "find_unused_parameters": keeps_buckets
        or context.recipe.train.freeze_backbone_epochs > 0
        or context.recipe.model.reuse is not None
        or leaves_weights_unused(context.recipe.model),
        _SYNC_BUFFERS: False,
    }
    return DDPStrategy(cluster_environment=environment, timeout=PATIENCE, **options)
