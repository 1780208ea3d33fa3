"""A device without hardware: torch's private-use device, whose tensors keep their values on the CPU.

It shows what a GPU would: which operations make the host wait for the device, and which mix tensors of two devices.
Values are the CPU's own, so that what is worked out on it equals the CPU to the bit.
"""

from __future__ import annotations

import traceback
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _get_privateuse1_backend_name,
    _setup_privateuseone_for_python_backend,
)

__all__ = ["MixedDevicesError", "Simulated", "device"]

_NAME = "simulated"
_WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "repeat_interleave", "_unique2"}
_COPIES = {"_to_copy", "copy_"}


class MixedDevicesError(RuntimeError):
    """An operation on tensors of two devices, which a GPU refuses."""


def device() -> torch.device:
    """The simulated device; registers it at the first call."""
    if _get_privateuse1_backend_name() != _NAME:
        _setup_privateuseone_for_python_backend(_NAME, backend_module=_Backend())
    return torch.device(_NAME, 0)


class _Backend(_DummyBackendModule):
    """What autocast, which losses switch off, wants to know."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


class _OnDevice(Tensor):
    """A tensor that says it is on the device."""

    value: Tensor

    @staticmethod
    def __new__(cls, value: Tensor) -> _OnDevice:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            value.size(),
            strides=value.stride(),
            storage_offset=value.storage_offset(),
            dtype=value.dtype,
            device=device(),
        )
        made.value = value
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} outside of Simulated()")

    def tolist(self) -> Any:
        """torch's own refuses a subclass."""
        return self.cpu().tolist()

    def __repr__(self) -> str:  # type: ignore[override]
        return f"_OnDevice({tuple(self.shape)}, {self.dtype})"


class Simulated(TorchDispatchMode):
    """While it is entered, the device works.

    Attributes:
        waits: What the host waited for the device with, and at which line: an operation's name, ``read`` for a copy to
            the host, ``sent`` for a copy to the device, which waits as long as its memory is not pinned.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = func.overloadpacket.__name__
        tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Tensor)]
        on_device = [each for each in tensors if isinstance(each, _OnDevice)]
        target = kwargs.get("device")
        to_device = bool(on_device) if target is None else torch.device(target).type == _NAME
        if name == "copy_":
            to_device = isinstance(args[0], _OnDevice)
        if target is not None and to_device:
            kwargs["device"] = torch.device("cpu")
        self._watch(name, args, tensors, on_device, to_device)
        result = func(*tree_map(_value, args), **tree_map(_value, kwargs))
        if not to_device or name in ("_local_scalar_dense", "equal"):
            return result
        own = {id(each.value): each for each in on_device}  # what works in place hands its argument back
        return tree_map(lambda each: _wrapped(each, own), result)

    def _watch(self, name: str, args: Any, tensors: list[Tensor], on_device: list[_OnDevice], to_device: bool) -> None:
        if name in _COPIES:
            crosses = bool(on_device) != to_device or len(on_device) not in (0, len(tensors))
            if crosses:
                self._waited("sent" if to_device else "read")
            return
        if not on_device:
            return
        if name in _WAITS or (name in ("index", "index_put_", "_index_put_impl_") and _by_truth(args[1])):
            self._waited(name)
        # a number on the host goes along with any device, as torch has it; an index may be one too
        strangers = [each for each in tensors if not isinstance(each, _OnDevice) and each.dim() > 0]
        if strangers:
            raise MixedDevicesError(f"{name}: tensors on {_NAME} and on the CPU")

    def _waited(self, name: str) -> None:
        frames = [each for each in traceback.extract_stack() if "/distill/" in each.filename.replace("\\", "/")]
        at = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "?"
        self.waits.append(f"{name} at {at}")


def _by_truth(index: Any) -> bool:
    return any(isinstance(each, Tensor) and each.dtype in (torch.bool, torch.uint8) for each in index)


def _wrapped(each: Any, own: dict[int, _OnDevice]) -> Any:
    if not isinstance(each, Tensor):
        return each
    return own[id(each)] if id(each) in own else _OnDevice(each)


def _value(each: Any) -> Any:
    return each.value if isinstance(each, _OnDevice) else each
