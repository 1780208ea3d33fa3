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

from distill.data.array_cache import ArrayWriter, array_key, open_or_build, read_split, require_space
from distill.data.channels import ChannelStats
from distill.data.decode import fit_rgb
from distill.data.images import UNLABELLED, Decoded, channel_stats
from distill.errors import DataError, MissingError
from distill.events import StageProgress, Tell, silent
from distill.files import expanded
from distill.recipe.data_spec import REST, WITH_UNLABELLED, DataSpec
from distill.text import first_line

__all__ = ["NAMED_CLASSES", "is_here", "load_named"]

NAMED_CLASSES = {"mnist": 10, "fashion_mnist": 10, "svhn": 10, "stl10": 10}
_BLOCK = 1024  # images that are written at once
_MORE = {"split": "unlabeled"}  # how WITH_UNLABELLED are asked for their images without labels


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

    Grey images become three equal channels. STL-10's images without labels, 2.8 GB at 96 pixels, are read where
    ``data.unlabelled: rest`` asks for them; SVHN's extra images are not.

    Raises:
        MissingError: Files are absent and cannot be downloaded.
        DataError: A file is damaged.
    """
    source, root = SOURCES[spec.name], _root(spec)
    if not is_here(spec):
        _download(spec, source, root)
    stats = [(root / file).stat() for file in source.files]
    identity = [[status.st_size, status.st_mtime_ns, status.st_ctime_ns] for status in stats]
    more = [_MORE["split"]] if _wants_unlabelled(spec) else []
    key = array_key("named", spec.name, str(root.resolve()), spec.side, identity, *more)
    entry = open_or_build(key, partial(_build, spec, source, root, tell), tell)
    known = ChannelStats(mean=tuple(entry.facts["mean"]), std=tuple(entry.facts["std"]))
    train, unlabelled = entry.splits["train"], None
    if more:
        has_label = train.labels != UNLABELLED
        train, unlabelled = (train.subset(np.flatnonzero(which)) for which in (has_label, ~has_label))
    classes = tuple(entry.facts["classes"])
    return Decoded(classes, train, entry.splits["test"], stats=known, unlabelled=unlabelled)


def _wants_unlabelled(spec: DataSpec) -> bool:
    return spec.name in WITH_UNLABELLED and spec.unlabelled == REST


def _root(spec: DataSpec) -> Path:
    return expanded(spec.root)


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


@dataclass(frozen=True, eq=False)
class _Part:
    """As torchvision reads them: uint8, grey ``(N, H, W)`` or coloured ``(N, 3, H, W)``; labels ``(N,)`` int64."""

    pixels: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]


def _build(spec: DataSpec, source: _Source, root: Path, tell: Tell, aside: Path) -> Mapping[str, Any]:
    train, test = (_read(spec, source, root, arguments) for arguments in source.splits)
    more = [_read(spec, source, root, _MORE)] if _wants_unlabelled(spec) else []
    for name, parts in (("train", [train, *more]), ("test", [test])):
        labels = np.concatenate([part.labels for part in parts])
        require_space(aside, len(labels) * 3 * spec.side**2)
        with ArrayWriter(aside, name, labels, spec.side) as writer:
            row = 0
            for pixels in (
                part.pixels[at : at + _BLOCK] for part in parts for at in range(0, len(part.pixels), _BLOCK)
            ):
                writer.write(row, _fitted(pixels, spec.side))
                row += len(pixels)
                tell(StageProgress("read", row, len(labels)))
    found = channel_stats(read_split(aside, "train").subset(np.arange(len(train.labels))))
    return {"classes": train.classes, "mean": found.mean, "std": found.std}


def _read(spec: DataSpec, source: _Source, root: Path, arguments: Mapping[str, Any]) -> _Part:
    """What torchvision reads of one split, looked at: an image for every label, every label a class's."""
    try:
        opened = _open(source, root, **arguments)
        labels = np.asarray(opened.targets if hasattr(opened, "targets") else opened.labels).astype(np.int64)
        part = _Part(np.asarray(opened.data), labels, tuple(map(str, getattr(opened, "classes", range(10)))))
    except Exception as error:  # parsers of four formats, which raise anything where a file is damaged
        raise DataError(
            f"{spec.name} in {root} is damaged: torchvision's {source.kind} cannot read it: {first_line(error)}",
            hint=f"remove {', '.join(source.files)}; the next run downloads them again",
        ) from error
    known = {UNLABELLED} if arguments is _MORE else set(range(len(part.classes)))
    if len(part.pixels) != len(labels) or not len(labels) or not set(np.unique(labels)) <= known:
        what = " ".join(map(str, arguments.values()))
        raise DataError(
            f"{spec.name} in {root} is damaged: {len(part.pixels):,} images and {len(labels):,} labels ({what})"
        )
    return part


def _fitted(pixels: np.ndarray, side: int) -> np.ndarray:
    """Grey ``(N, H, W)`` or coloured ``(N, 3, H, W)`` uint8 as ``(N, 3, side, side)``."""
    if pixels.ndim == 3:
        pixels = np.repeat(pixels[:, None], 3, axis=1)
    if pixels.shape[2:] == (side, side):
        return pixels
    return np.stack([fit_rgb(np.ascontiguousarray(image.transpose(1, 2, 0)), side) for image in pixels])
