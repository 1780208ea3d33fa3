"""Tiny-ImageNet in its own layout: classes by WordNet id, and validation images whose labels stand in one file.

Its test images have no labels, so that the validation images are the test set, as everywhere.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from distill.data.folder import load_folder
from distill.data.images import Decoded
from distill.data.layout import Listing, SplitListing
from distill.errors import DataError, MissingError
from distill.events import Tell, silent
from distill.files import expanded, read_text
from distill.recipe.schema import DataSpec

__all__ = ["load_tiny_imagenet", "tiny_imagenet_classes", "tiny_imagenet_root"]

_FOLDER = "tiny-imagenet-200"
_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
_ANNOTATIONS = "val/val_annotations.txt"


def load_tiny_imagenet(spec: DataSpec, tell: Tell = silent) -> Decoded:
    """Decode ``spec.root``, or the folder ``tiny-imagenet-200`` in it: ``train/`` trains, ``val/`` tests.

    Raises:
        MissingError: It is not there.
        DataError: Files of its layout are missing or make no sense, or images are bad.
    """
    root = tiny_imagenet_root(spec)
    return load_folder(spec.model_copy(update={"root": str(root)}), tell, listing=_listed(root))


def tiny_imagenet_root(spec: DataSpec) -> Path:
    """The folder that holds ``wnids.txt``.

    Raises:
        MissingError: There is none.
    """
    root = expanded(spec.root)
    for folder in (root, root / _FOLDER):
        if (folder / "wnids.txt").is_file():
            return folder
    raise MissingError(
        f"tiny_imagenet is not in {root}: no wnids.txt there, nor in {root / _FOLDER}",
        hint=f"unpack {_URL} there; or name the folder that holds it: --set data.root=PATH",
    )


def tiny_imagenet_classes(spec: DataSpec) -> tuple[str, ...]:
    """The classes' names, in the order of their ids; no image is read.

    Raises:
        MissingError: It is not there.
        DataError: Its lists make no sense.
    """
    root = tiny_imagenet_root(spec)
    return _names(root, _ids(root))


def _ids(root: Path) -> list[str]:
    ids = sorted(read_text(root / "wnids.txt").split())
    if len(ids) < 2 or len(set(ids)) != len(ids):
        raise DataError(f"{root / 'wnids.txt'}: {len(ids)} ids, {len(set(ids))} different; two at least are needed")
    return ids


def _names(root: Path, ids: list[str]) -> tuple[str, ...]:
    """The first word for each id, with the id where several have the same; the id alone where there is none."""
    words = {}
    if (root / "words.txt").is_file():
        rows = (line.split("\t", 1) for line in read_text(root / "words.txt").splitlines())
        words = {row[0]: row[1].split(",")[0].strip() for row in rows if len(row) == 2}
    names = [words.get(each) or each for each in ids]
    return tuple(f"{name} {each}" if names.count(name) > 1 else name for name, each in zip(names, ids, strict=True))


def _listed(root: Path) -> Listing:
    ids = _ids(root)
    label = {each: number for number, each in enumerate(ids)}
    train: list[tuple[str, int]] = []
    for each in ids:
        folder = root / "train" / each / "images"
        if not folder.is_dir():
            raise DataError(f"{root} lacks train/{each}/images, of a class in wnids.txt", hint=f"unpack {_URL} again")
        train += [(f"train/{each}/images/{path.name}", label[each]) for path in sorted(folder.glob("[!.]*.JPEG"))]
    splits = {"train": train, "test": _annotated(root, label)}
    for name, pairs in splits.items():
        if missing := set(label.values()) - {number for _, number in pairs}:
            raise DataError(f"{root}: no {name} images of {ids[min(missing)]}", hint=f"unpack {_URL} again")
    listings = {
        name: SplitListing(tuple(path for path, _ in pairs), np.array([number for _, number in pairs], dtype=np.int64))
        for name, pairs in splits.items()
    }
    return Listing(_names(root, ids), listings, ignored=0)


def _annotated(root: Path, label: dict[str, int]) -> list[tuple[str, int]]:
    """Validation images and labels: a line has a file, an id, and a box that is not read."""
    file = root / _ANNOTATIONS
    if not file.is_file():
        raise DataError(f"{root} lacks {_ANNOTATIONS}, the labels of its val/ images", hint=f"unpack {_URL} again")
    pairs = []
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        name, _, rest = line.partition("\t")
        each = rest.partition("\t")[0]
        if each not in label or not name or "/" in name or "\\" in name:
            raise DataError(f"{file}:{number}: not a file and an id of wnids.txt: {line[:60]!r}")
        pairs.append((f"val/images/{name}", label[each]))
    return sorted(pairs)
