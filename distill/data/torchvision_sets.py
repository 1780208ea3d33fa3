"""MNIST, FashionMNIST, SVHN and STL-10, as torchvision downloads, checks and reads them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.array_cache import ArrayWriter, array_key, open_or_build, read_split
from distill.data.channels import ChannelStats
from distill.data.decode import fit_rgb
from distill.data.images import Decoded, channel_stats
from distill.errors import DataError, MissingError
from distill.events import StageProgress, Tell, silent
from distill.recipe.schema import DataSpec
from distill.text import first_line

__all__ = ["NAMED_CLASSES", "is_here", "load_named"]

NAMED_CLASSES = {"mnist": 10, "fashion_mnist": 10, "svhn": 10, "stl10": 10}
_BLOCK = 1024  # images that are written at once


@dataclass(frozen=True)
class _Source:
    """A data set of torchvision's: its class's name, where its files lie below ``data.root``, and how to ask for one.

    Attributes:
        splits: Arguments of the class for training and test images.
    """

    kind: str
    files: tuple[str, ...]
    splits: tuple[dict[str, Any], dict[str, Any]]


_MNIST_FILES = tuple(
    f"{part}-{what}" for part in ("train", "t10k") for what in ("images-idx3-ubyte", "labels-idx1-ubyte")
)
_BY_FLAG = ({"train": True}, {"train": False})
_BY_NAME = ({"split": "train"}, {"split": "test"})
_STL10_FILES = ("train_X", "train_y", "unlabeled_X", "test_X", "test_y")

SOURCES = {
    "mnist": _Source("MNIST", tuple(f"MNIST/raw/{file}" for file in _MNIST_FILES), _BY_FLAG),
    "fashion_mnist": _Source("FashionMNIST", tuple(f"FashionMNIST/raw/{file}" for file in _MNIST_FILES), _BY_FLAG),
    "svhn": _Source("SVHN", ("train_32x32.mat", "test_32x32.mat"), _BY_NAME),
    "stl10": _Source(
        "STL10", (*(f"stl10_binary/{file}.bin" for file in _STL10_FILES), "stl10_binary/class_names.txt"), _BY_NAME
    ),
}


def is_here(spec: DataSpec) -> bool:
    """Whether all files of the data set lie below ``spec.root``."""
    return all((_root(spec) / file).is_file() for file in SOURCES[spec.name].files)


def load_named(spec: DataSpec, tell: Tell = silent) -> Decoded:
    """Read ``spec.name`` from ``spec.root``, where torchvision puts its files; it downloads what is absent.

    Grey images become three equal channels. SVHN's extra images and STL-10's images without labels are not read.

    Raises:
        MissingError: Files are absent and cannot be downloaded.
        DataError: A file is damaged.
    """
    source, root = SOURCES[spec.name], _root(spec)
    if not is_here(spec):
        _download(spec, source, root)
    stats = [(root / file).stat() for file in source.files]
    identity = [[status.st_size, status.st_mtime_ns, status.st_ctime_ns] for status in stats]
    key = array_key("named", spec.name, str(root.resolve()), spec.side, identity)
    entry = open_or_build(key, partial(_build, spec, source, root, tell), tell)
    known = ChannelStats(mean=tuple(entry.facts["mean"]), std=tuple(entry.facts["std"]))
    return Decoded(tuple(entry.facts["classes"]), entry.splits["train"], entry.splits["test"], stats=known)


def _root(spec: DataSpec) -> Path:
    return Path(spec.root).expanduser()


def _download(spec: DataSpec, source: _Source, root: Path) -> None:
    hint = (
        f"put {', '.join(source.files)} into {root.resolve()}; or name the folder that holds them: --set data.root=PATH"
    )
    try:
        for arguments in source.splits:
            _open(source, root, download=True, **arguments)
    except (OSError, RuntimeError, ValueError, AssertionError) as error:
        raise MissingError(
            f"{spec.name} is not whole in {root}, and torchvision could not download it: {first_line(error)}", hint=hint
        ) from error
    if not is_here(spec):
        raise MissingError(f"{spec.name} is not whole in {root}, though torchvision downloaded it", hint=hint)


def _open(source: _Source, root: Path, **arguments: Any) -> Any:
    """torchvision's data set."""
    from torchvision import datasets

    with contextlib.redirect_stdout(sys.stderr):  # it prints there what it tries; stdout is for documents
        return getattr(datasets, source.kind)(str(root), **arguments)


def _build(spec: DataSpec, source: _Source, root: Path, tell: Tell, aside: Path) -> Mapping[str, Any]:
    classes: list[str] = []
    for name, arguments in zip(("train", "test"), source.splits, strict=True):
        try:
            opened = _open(source, root, **arguments)
            pixels = np.asarray(opened.data)
            labels = np.asarray(opened.targets if hasattr(opened, "targets") else opened.labels).astype(np.int64)
        except Exception as error:  # parsers of four formats, which raise anything where a file is damaged
            raise DataError(
                f"{spec.name} in {root} is damaged: torchvision's {source.kind} cannot read it: {first_line(error)}",
                hint=f"remove {', '.join(source.files)}; the next run downloads them again",
            ) from error
        classes = classes or [str(each) for each in getattr(opened, "classes", range(10))]
        if len(pixels) != len(labels) or not len(labels) or not set(np.unique(labels)) <= set(range(len(classes))):
            raise DataError(f"{spec.name} in {root} is damaged: {len(pixels):,} {name} images, {len(labels):,} labels")
        with ArrayWriter(aside, name, labels, spec.side) as writer:
            for at in range(0, len(pixels), _BLOCK):
                writer.write(at, _fitted(pixels[at : at + _BLOCK], spec.side))
                tell(StageProgress("read", min(at + _BLOCK, len(pixels)), len(pixels)))
    found = channel_stats(read_split(aside, "train"))
    return {"classes": classes, "mean": found.mean, "std": found.std}


def _fitted(pixels: np.ndarray, side: int) -> np.ndarray:
    """Grey ``(N, H, W)`` or coloured ``(N, 3, H, W)`` uint8 as ``(N, 3, side, side)``."""
    if pixels.ndim == 3:
        pixels = np.repeat(pixels[:, None], 3, axis=1)
    if pixels.shape[2:] == (side, side):
        return pixels
    return np.stack([fit_rgb(np.ascontiguousarray(image.transpose(1, 2, 0)), side) for image in pixels])
