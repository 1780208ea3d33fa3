"""CIFAR-10 and CIFAR-100 from the official files, whose names and checksums torchvision knows.

The official files are pickles. Their bytes are unpickled only after their md5 has been found to be the published one,
and even then by a reader that can build NumPy arrays and nothing else.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.array_cache import ArrayWriter, array_key, open_or_build
from distill.data.channels import ChannelStats
from distill.data.cifar_files import Official, official_files, official_set
from distill.data.decode import fit_rgb
from distill.data.images import Decoded, Split, channel_stats
from distill.errors import DataError
from distill.events import StageProgress, Tell, silent
from distill.files import expanded, regular
from distill.recipe.schema import DataSpec

__all__ = ["load_cifar"]

_SIDE = 32


def load_cifar(spec: DataSpec, tell: Tell = silent) -> Decoded:
    """Read ``spec.name`` from ``spec.root``, downloading it first where it is absent.

    Raises:
        MissingError: The files are absent and cannot be downloaded.
        DataError: A file is damaged.
    """
    official = official_set(spec.name)
    files = official_files(official, expanded(spec.root), tell)
    key = array_key("cifar", spec.name, spec.side, [_identity(files[name], name) for name in sorted(files)])
    entry = open_or_build(key, partial(_build, official, files, spec.side, tell), tell)
    stats = ChannelStats(mean=tuple(entry.facts["mean"]), std=tuple(entry.facts["std"]))
    return Decoded(tuple(entry.facts["classes"]), entry.splits["train"], entry.splits["test"], stats=stats)


def _identity(path: Path, name: str) -> list[str | int]:
    """What changes when a file is touched, so that a file replaced since is read, and checked, again."""
    status = path.stat()
    return [name, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _build(official: Official, files: Mapping[str, Path], size: int, tell: Tell, aside: Path) -> dict[str, Any]:
    contents = {}
    for done, (name, md5) in enumerate(official.md5.items()):
        tell(StageProgress("read", done, len(official.md5)))
        contents[name] = _unpickle(files[name], md5)
    tell(StageProgress("read", len(official.md5), len(official.md5)))
    stats = None
    for split, names in (("train", official.train), ("test", official.test)):
        images = np.concatenate([np.asarray(contents[name]["data"]).reshape(-1, 3, _SIDE, _SIDE) for name in names])
        labels = np.concatenate([contents[name][official.label_key] for name in names]).astype(np.int64)
        if size != _SIDE:
            images = np.stack([fit_rgb(image.transpose(1, 2, 0), size) for image in images])
        with ArrayWriter(aside, split, labels, size) as writer:
            writer.write(0, images)
        stats = stats or channel_stats(Split(images, labels))
    classes = [str(name) for name in contents[official.meta][official.classes_key]]
    assert stats is not None, "of the first split"
    return {"classes": classes, "mean": stats.mean, "std": stats.std}


def _unpickle(path: Path, md5: str) -> dict[str, Any]:
    """The content of an official file, from the very bytes whose md5 was checked."""
    try:
        content = regular(path).read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if digest != md5:
        raise DataError(
            f"{path} is damaged: {len(content):,} bytes with md5 {digest}, the official file has md5 {md5}",
            hint=f"remove {path.parent}; the next run downloads it again",
        )
    return _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles NumPy arrays and plain containers, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = {"_reconstruct": _empty_array, "ndarray": np.ndarray, "dtype": np.dtype}
        if module.partition(".")[0] == "numpy" and name in allowed:
            return allowed[name]
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a CIFAR file")


def _empty_array(kind: type, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    return np.ndarray.__new__(kind, shape, dtype)
