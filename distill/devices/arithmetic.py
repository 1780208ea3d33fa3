"""Where the arithmetic runs, and in which precision."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from distill.devices.hardware import describe_device
from distill.errors import MissingError, UsageError

__all__ = [
    "DTYPES",
    "Precision",
    "PrecisionName",
    "autocast",
    "deterministic_kernels",
    "fabric_precision",
    "fast_kernels",
    "resolve_device",
    "resolve_precision",
]

PrecisionName = Literal["fp32", "bf16", "fp16"]
FabricPrecision = Literal["32-true", "bf16-mixed", "16-mixed"]

_FABRIC_PRECISION: dict[PrecisionName, FabricPrecision] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
DTYPES: dict[PrecisionName, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """The precision of the networks' forward and backward passes, and what the user should know about it."""

    name: PrecisionName
    warning: str | None = None


def resolve_device(name: str | None = "auto") -> torch.device:
    """The device of that name: ``auto`` (or None) is what ``$DISTILL_DEVICE`` names, else the first of cuda, mps, cpu.

    GPUs get their index (``cuda`` is ``cuda:0``), so that the result equals the ``device`` of tensors made on it.

    Raises:
        UsageError: The name is not one of auto, cpu, mps, cuda, cuda:N.
        MissingError: This machine has no such device.
    """
    wanted, said = _plain(name), ""
    if wanted == "auto":
        wanted, said = _plain(os.environ.get("DISTILL_DEVICE")), " ($DISTILL_DEVICE)"
    available = _available_devices()
    if wanted == "auto":
        return available[0]
    device = _parse_device(wanted, said)
    if device not in available:
        listed = ", ".join(str(each) for each in available)
        raise MissingError(f"device {wanted}{said}: {_why_missing(device)}", hint=f"available here: {listed}")
    return device


def _plain(name: str | None) -> str:
    return (name or "auto").strip().lower()


def _available_devices() -> list[torch.device]:
    devices = [torch.device("cuda", index) for index in range(torch.cuda.device_count())] if _has_cuda() else []
    if torch.backends.mps.is_available():
        devices.append(torch.device("mps", 0))
    return [*devices, torch.device("cpu")]


def _has_cuda() -> bool:
    return torch.cuda.is_available()


def _parse_device(name: str, said: str) -> torch.device:
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "mps", "cuda") or (":" in name and not index.isdecimal()):
        hint = "use auto, cpu, mps, cuda, or one of several: cuda:1"
        raise UsageError(f"device {name!r}{said} is unknown", hint=hint)
    number = int(index or 0)
    return torch.device("cpu") if (kind, number) == ("cpu", 0) else torch.device(kind, number)


def _why_missing(device: torch.device) -> str:
    if device.type == "cuda" and torch.version.cuda is None and torch.version.hip is None:
        return f"PyTorch {torch.__version__} was built without CUDA"
    if device.type == "cuda" and not _has_cuda():
        return "PyTorch finds no usable NVIDIA driver or GPU"
    return "not on this machine"


def resolve_precision(name: str, device: torch.device, *, key: str = "train.precision") -> Precision:
    """The precision for a recipe's ``key`` on ``device``, with a warning where that is a slow choice.

    ``auto`` is bf16 on CUDA devices with bf16 arithmetic, fp16 on older ones, fp32 elsewhere.

    Raises:
        UsageError: fp16 on a CPU, or an unknown name.
    """
    if name == "auto":
        if device.type != "cuda":
            return Precision("fp32")
        return Precision("bf16" if _has_native_bf16(device) else "fp16")
    known = next((each for each in _FABRIC_PRECISION if each == name), None)
    if known is None:
        raise UsageError(f"{key} {name!r} is unknown", hint="use auto, fp32, bf16 or fp16")
    if name == "fp16" and device.type == "cpu":
        raise UsageError(f"{key} fp16 needs a GPU; a CPU computes in fp32 or bf16", hint=f"use {key}: auto")
    if name == "bf16" and not _has_native_bf16(device):
        return Precision("bf16", _emulation_warning(device, key))
    return Precision(known)


def _has_native_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        # For this device, not the current one; ROCm numbers its capabilities otherwise, and always has bf16.
        return torch.version.hip is not None or torch.cuda.get_device_capability(device)[0] >= 8
    if device.type == "cpu":
        return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return True


def _emulation_warning(device: torch.device, key: str) -> str:
    slower = " (20 to 60 times slower than fp32)" if device.type == "cpu" else ""
    return f"{key} bf16: {describe_device(device)} has no bf16 arithmetic and emulates it{slower}; use {key}: auto"


def fabric_precision(name: PrecisionName) -> FabricPrecision:
    """Lightning Fabric's name for a precision: weights stay float32, ``16-mixed`` brings a gradient scaler.

    >>> fabric_precision("bf16")
    'bf16-mixed'
    """
    return _FABRIC_PRECISION[name]


def autocast(device: torch.device, name: PrecisionName) -> contextlib.AbstractContextManager[None]:
    """A context in which the networks run in that precision (fp32: does nothing)."""
    if name == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=DTYPES[name])


@contextlib.contextmanager
def fast_kernels(device: torch.device) -> Iterator[None]:
    """On a CUDA device: let cuDNN try its kernels out, unless deterministic ones were asked for.

    Whoever is compared works in this, ours and others', so that all of them run the kernels that are fastest here.
    """
    if device.type != "cuda" or torch.are_deterministic_algorithms_enabled():
        yield
        return
    cudnn = torch.backends.cudnn
    benchmark, cudnn.benchmark = cudnn.benchmark, True  # batches keep their shape: trying kernels out pays
    try:
        yield
    finally:
        cudnn.benchmark = benchmark


@contextlib.contextmanager
def deterministic_kernels(device: torch.device, wanted: bool) -> Iterator[None]:
    """On a CUDA device: kernels that repeat every bit, and an error from those that cannot; else the fastest ones.

    cuBLAS reads its workspace from the environment when it is first used, so this must come before any work there.
    """
    if device.type != "cuda" or not wanted:
        with fast_kernels(device):
            yield
        return
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    flags = cudnn.benchmark, cudnn.deterministic
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # stays: cuBLAS keeps what it read
    try:
        torch.use_deterministic_algorithms(True)
        cudnn.benchmark, cudnn.deterministic = False, True
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        cudnn.benchmark, cudnn.deterministic = flags
