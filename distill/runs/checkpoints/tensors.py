"""The two files of a checkpoint that hold tensors: weights as safetensors, and what else it takes to go on."""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save_file
from torch import Tensor

from distill.files import has_controls, regular, sync_file

__all__ = ["assert_plain", "read_model", "read_resume", "write_model", "write_resume"]

_PLAIN = (int, float, bool, str, type(None))


def write_model(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write weights, the same bytes for the same tensors, as any new file is written here: the umask decides who reads.

    Raises:
        OSError: The disk is full, or permission is missing.
    """
    path.touch()
    mode = path.stat().st_mode
    try:
        # One key: safetensors writes several in random order.
        save_file(_flat(state), path, metadata={"format": "pt"})
    except SafetensorError as error:
        if (match := re.search(r"os error (\d+)", str(error))) is None:
            raise
        raise OSError(int(match[1]), os.strerror(int(match[1]))) from error
    with contextlib.suppress(PermissionError):  # some file systems have no modes
        path.chmod(mode)  # safetensors makes a file of its own, which nobody else may read
    sync_file(path)


def _flat(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, each contiguous and alone in its memory, as safetensors wants them."""
    flat: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != tensor.nbytes:
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        flat[name] = tensor
    return flat


def read_model(path: Path) -> dict[str, Tensor]:
    """The weights on the CPU, each tensor with memory of its own.

    Raises:
        SafetensorError, OSError, ValueError, LookupError, RuntimeError: The file is damaged.
    """
    # safetensors takes paths as text, which not every path is.
    tensors = load(regular(path).read_bytes()) if has_controls(str(path)) else load_file(regular(path))
    # Clones: the tensors of load_file share one mapping of the file, and could not be saved again as they are.
    return {name: tensor.clone() for name, tensor in tensors.items()}


class _Noting:
    """A file for torch.save, which hides what the operating system said behind a RuntimeError."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def write_resume(path: Path, state: dict[str, Any]) -> None:
    """Write a tree that :func:`assert_plain` lets pass.

    Raises:
        OSError: The disk is full, or permission is missing.
    """
    with open(path, "wb") as file:
        noting = _Noting(file)
        try:
            torch.save(state, cast("IO[bytes]", noting))  # torch asks no more of a file than it has
        except RuntimeError as error:
            if noting.error is None:
                raise
            raise noting.error from error
    sync_file(path)


def read_resume(path: Path) -> Any:
    """What was written, tensors on the CPU; nothing but tensors and plain values is ever unpickled.

    Raises:
        Exception: The file is damaged: forged bytes bring about struct.error, AttributeError, UnpicklingError ...
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about foreign formats, which an error follows
        return torch.load(regular(path), map_location="cpu", weights_only=True)


def assert_plain(value: Any, where: str) -> None:
    """What ``weights_only=True`` can read back; exact types, because np.float64 is a float and cannot."""
    kind = type(value)
    if isinstance(value, Tensor) or kind in _PLAIN:
        return
    if kind in (dict, OrderedDict):
        for key, item in value.items():
            assert type(key) in _PLAIN, f"{where}: key {key!r} is a {type(key).__name__}, not a plain value"
            assert_plain(item, f"{where}[{key!r}]")
        return
    assert kind in (list, tuple), f"{where} is a {kind.__module__}.{kind.__name__}, neither a tensor nor a plain value"
    for index, item in enumerate(value):
        assert_plain(item, f"{where}[{index}]")
