"""Data sets by name: decoded, limited, fingerprinted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from distill.data.cifar import load_cifar
from distill.data.digits import load_digits
from distill.data.folder import folder_classes, load_folder
from distill.data.hugging_face import hugging_face_classes, load_hugging_face
from distill.data.images import Decoded, Split, channel_stats, pixel_digest
from distill.data.own import load_own, own_classes
from distill.data.stratify import balanced_subset
from distill.data.synthetic import SYNTHETIC_CLASSES, load_synthetic
from distill.data.tiny_imagenet import load_tiny_imagenet, tiny_imagenet_classes
from distill.data.torchvision_sets import NAMED_CLASSES, load_named
from distill.errors import UsageError
from distill.events import Tell, silent
from distill.recipe.schema import DataSpec

__all__ = ["LOADERS", "Dataset", "Split", "load_dataset", "num_classes", "split_fingerprint"]

LOADERS: dict[str, Callable[[DataSpec, Tell], Decoded]] = {
    "cifar10": load_cifar,
    "cifar100": load_cifar,
    "digits": load_digits,
    "synthetic": load_synthetic,
    "folder": load_folder,
    "python": load_own,
    "hf": load_hugging_face,
    **dict.fromkeys(NAMED_CLASSES, load_named),
    "tiny_imagenet": load_tiny_imagenet,
}
_COUNTED = {"python": own_classes, "hf": hugging_face_classes, "tiny_imagenet": tiny_imagenet_classes}


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set, ready for use.

    Attributes:
        name: As in the recipe.
        classes: Names in the order of their labels.
        train: All training images (after ``data.limit``), before validation is carved from them.
        left_out: The training images that ``data.limit`` leaves out; None where it leaves none.
        unlabelled: Images without labels that the data set comes with, on the base array of ``train``.
        val: Only where the data set brings a validation split of its own.
        test: Test images (after ``data.test_limit``).
        fingerprint: Hex sha256 over pixels, labels and class names of ``train``: content alone, no paths or dates.
        mean: Of each channel of the training pixels in 0..1, to 6 decimals.
        std: The same for the standard deviation.
        skipped: Unreadable images left out (``data.skip_bad``).
        ignored: Entries of a folder that were passed over: other file types, folders within class folders.
        note: What was decided about it that a user should know, or None.
        is_test_carved: Whether ``test`` was set aside from what would be training images.
        twins: Splits and rows of equal images, as they were decoded; empty where nobody looked.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    val: Split | None
    test: Split
    fingerprint: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    skipped: int = 0
    ignored: int = 0
    note: str | None = None
    is_test_carved: bool = False
    twins: tuple[Sequence[tuple[str, int]], ...] = ()
    left_out: Split | None = None
    unlabelled: Split | None = None

    @property
    def rest(self) -> dict[str, Split]:
        """Training images that have no label here: which they are, and the images, on the base array of ``train``."""
        known = {"that data.limit leaves out": self.left_out, "without labels": self.unlabelled}
        return {what: split for what, split in known.items() if split is not None}


def load_dataset(spec: DataSpec, *, tell: Tell = silent) -> Dataset:
    """Load the data set a recipe names, from the array cache where it was decoded before.

    Args:
        spec: The recipe's ``data:``.
        tell: Told the progress of download, list, read, decode, and check.

    Raises:
        MissingError: The data, or a place to keep its decoded images, is missing.
        DataError: The data was found but cannot be used; all bad images are listed at once.
        UsageError: Only pictures in a folder can be decoded for every batch.
    """
    if spec.decoded == "per_batch" and spec.name not in ("folder", "tiny_imagenet"):
        raise UsageError(
            f"data.decoded: per_batch is for pictures in a folder, and data.name is {spec.name}",
            hint="leave it out: such images are kept in memory",
        )
    decoded = LOADERS[spec.name](spec, tell)
    train, left_out = _limited(decoded.train, spec.limit, "train", spec.split_seed)
    test, _ = _limited(decoded.test, spec.test_limit, "test", spec.split_seed)
    stats = decoded.stats if decoded.stats is not None and train is decoded.train else channel_stats(train)
    return Dataset(
        name=spec.name,
        classes=decoded.classes,
        train=train,
        val=decoded.val,
        test=test,
        fingerprint=split_fingerprint(train, decoded.classes),
        mean=stats.mean,
        std=stats.std,
        skipped=decoded.skipped,
        ignored=decoded.ignored,
        note=decoded.note,
        is_test_carved=decoded.is_test_carved,
        twins=decoded.twins,
        left_out=left_out,
        unlabelled=decoded.unlabelled,
    )


def num_classes(spec: DataSpec) -> int:
    """How many classes the data set has, without decoding an image.

    Raises:
        MissingError: A folder, an archive, or code is not there.
        DataError: It has another layout.
        UsageError: Code may not run, or it raised.
    """
    fixed = {"cifar10": 10, "cifar100": 100, "digits": 10, "synthetic": SYNTHETIC_CLASSES} | NAMED_CLASSES
    if spec.name in fixed:
        return fixed[spec.name]
    find = _COUNTED.get(spec.name, folder_classes)
    return len(find(spec))


def _limited(split: Split, limit: int | None, name: str, split_seed: int) -> tuple[Split, Split | None]:
    """So many images of a split, and the others; None: there are no others."""
    if limit is None or limit >= len(split):
        return split, None
    kept = balanced_subset(split.labels, limit, "data", "limit", name, split_seed)
    return split.subset(kept), split.subset(np.setdiff1d(np.arange(len(split)), kept, assume_unique=True))


def split_fingerprint(split: Split, classes: tuple[str, ...]) -> str:
    """Hex sha256 over a split's pixels, labels and class names: content alone, no paths or dates."""
    digest = hashlib.sha256(f"images {split.image_size} {len(split)} {pixel_digest(split)} ".encode())
    digest.update(split.labels.astype("<i8").tobytes())
    digest.update("\0".join(classes).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
