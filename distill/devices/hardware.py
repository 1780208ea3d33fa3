"""What the machine is called, what it has, and what of it this process uses: threads, memory, libraries."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import os
import platform
import re
from collections.abc import Iterator

import torch

from distill.devices.kit_script import cpu_model
from distill.errors import UsageError
from distill.team.cores import usable_cores
from distill.text import counted

__all__ = [
    "describe_device",
    "is_out_of_memory",
    "keep_freed_memory",
    "library_versions",
    "set_threads",
    "synchronize",
    "threads",
    "using_threads",
]

_OUT_OF_MEMORY = re.compile(
    r"out of memory|can't allocate memory|not enough memory|CU(BLAS|DNN)_STATUS_ALLOC_FAILED", re.IGNORECASE
)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt(3)
_NEVER = 2**31 - 1
_MALLOC_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")

_LIBRARIES = (
    "distill",
    "torch",
    "torchvision",
    "timm",
    "torchmetrics",
    "lightning-fabric",
    "numpy",
    "pillow",
    "scikit-learn",
    "safetensors",
    "pydantic",
)


def describe_device(device: torch.device) -> str:
    """What the hardware is called, for reports: ``NVIDIA H200``, or ``AMD EPYC 9354, 64 logical cores``."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return f"{cpu_model()} GPU"
    cores = usable_cores()
    return f"{cpu_model()}, {counted(cores, 'logical core')}"


def threads() -> int:
    """How many threads one CPU operation uses; it changes results in the last bits."""
    return torch.get_num_threads()


def set_threads(n: int) -> None:
    """Let one CPU operation use ``n`` threads.

    Raises:
        UsageError: ``n`` is less than 1.
    """
    if n < 1:
        raise UsageError(f"threads must be at least 1, got {n}")
    torch.set_num_threads(n)


@contextlib.contextmanager
def using_threads(n: int | None) -> Iterator[None]:
    """Let one CPU operation use ``n`` threads inside the block; None changes nothing.

    Raises:
        UsageError: ``n`` is less than 1.
    """
    before = threads()
    if n in (None, before):  # setting it, even to what it is, costs a pool of threads
        yield
        return
    set_threads(n)
    try:
        yield
    finally:
        set_threads(before)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was given; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def keep_freed_memory(device: torch.device) -> bool:
    """Where the arithmetic runs on the CPU: keep freed memory for the next allocation; whether that is so now.

    A training step frees all its activations. glibc gives them back to the system, which hands them out again zeroed,
    page by page: 15,000 page faults and 4 to 18% of the time of a ResNet-20 step. Kept for the rest of the process,
    they cost nothing, and no result changes. Nothing happens where the user has set glibc's ``malloc`` up.
    """
    is_set_up = any(name in os.environ for name in _MALLOC_SETTINGS)
    if device.type != "cpu" or is_set_up or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_THRESHOLD, 2**30) and mallopt(_M_TRIM_THRESHOLD, _NEVER))


def library_versions(*more: str) -> dict[str, str]:
    """Versions of Python and of the libraries that results depend on; what is not installed is left out.

    Args:
        more: Libraries that only these results depend on.
    """
    versions = {"python": platform.python_version()}
    for name in (*_LIBRARIES, *more):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def is_out_of_memory(error: BaseException) -> bool:
    """Whether PyTorch, on whatever device, ended for want of memory: it has a type for CUDA's alone."""
    return isinstance(error, torch.OutOfMemoryError) or _OUT_OF_MEMORY.search(str(error)) is not None
