"""What a run trains on, what it validates on, and what it is tested on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from distill.data.datasets import Dataset, load_dataset, split_fingerprint
from distill.data.images import Split
from distill.data.layout import ignored_note
from distill.data.stratify import stratified_fraction
from distill.data.twins import leaks, leaks_without_labels
from distill.data.unlabelled import Unlabelled, with_unlabelled
from distill.events import Tell, silent
from distill.recipe.schema import DataSpec
from distill.text import several

__all__ = ["Splits", "TrainVal", "load_splits", "split_train_val"]


@dataclass(frozen=True, eq=False)
class TrainVal:
    """Sorted positions in ``Dataset.train``: int64 ``(N - n,)`` to train on, ``(n,)`` (maybe none) to validate on."""

    train: np.ndarray
    val: np.ndarray


@dataclass(frozen=True, eq=False)
class Splits:
    """A data set with its validation split settled.

    Attributes:
        dataset: As loaded; its ``train`` still holds what ``val`` was carved from.
        train: What to train on; where there are ``unlabelled`` images, they stand behind the others.
        val: What to pick checkpoints by; None where everything is trained on.
        test: For the final report alone.
        fingerprint: Hex sha256 over the data and the choice of training images, those without labels left out.
        val_fingerprint: Of a validation split that the data set brings along; None where it is carved from training.
        train_index: int64 ``(N,)``, the position in ``dataset.train`` of each training image that has a label.
        note: What a user should know about the data, a line each, or None.
    """

    dataset: Dataset
    train: Split
    val: Split | None
    test: Split
    fingerprint: str
    train_index: np.ndarray
    note: str | None = None
    val_fingerprint: str | None = None
    unlabelled: Unlabelled | None = None

    @property
    def labelled(self) -> Split:
        """The training images that have labels."""
        return self.train if self.unlabelled is None else self.train.subset(np.arange(len(self.train_index)))

    @cached_property
    def leaks(self) -> tuple[str, ...]:
        """What makes its figures look better than they are: images that judge and are trained on, too."""
        data = self.dataset
        judging = {"test": ("train" if data.is_test_carved else "test", self.test)}
        if self.val is not None:
            judging["validation"] = ("train" if data.val is None else "val", self.val)
        if self.unlabelled is None or self.train.images is data.train.images:
            return leaks(data.twins, {"training": ("train", self.train)} | judging)
        # beside another folder's, which nobody looked at when the data set was decoded
        known = leaks(data.twins, {"training": ("train", data.train.subset(self.train_index))} | judging)
        more = self.train.subset(np.arange(len(self.train_index), len(self.train)))
        return known + leaks_without_labels(more, {part: split for part, (_, split) in judging.items()})

    @property
    def shown_fingerprint(self) -> str:
        """Of all images that a student is shown: a bank fits one of these."""
        if self.unlabelled is None:
            return self.fingerprint
        return hashlib.sha256(f"{self.fingerprint} {self.unlabelled.fingerprint}".encode()).hexdigest()

    def is_drawn_anew(self, split: str, trained_on: str | None) -> bool:
        """Whether a split may hold images that a run learned from: it is carved from others than were there then.

        So may one that code of the user's own gives, which tells training and test images apart as it likes.

        Args:
            split: ``test`` or ``val``.
            trained_on: The ``fingerprint`` of the run's own data; None where that is not known.
        """
        is_carved = self.dataset.is_test_carved if split == "test" else self.dataset.val is None
        is_carved = is_carved or self.dataset.name == "python"
        return is_carved and trained_on not in (None, self.fingerprint)

    @property
    def fill(self) -> np.ndarray:
        """The training images' mean colour, uint8 ``(3,)``: what erased squares show."""
        return np.rint(np.array(self.dataset.mean) * 255).astype(np.uint8)


def split_train_val(labels: np.ndarray, *, val_fraction: float, split_seed: int) -> TrainVal:
    """Carve a stratified validation split: about ``val_fraction`` of every class.

    Every class of two or more images gives at least one and keeps at least one.

    Shapes:
        labels: ``(N,)`` int64.
    """
    val = stratified_fraction(labels, val_fraction, "data", "val", split_seed)
    train = np.setdiff1d(np.arange(len(labels), dtype=np.int64), val, assume_unique=True)
    return TrainVal(train=train, val=val)


def load_splits(spec: DataSpec, tell: Tell = silent, *, unlabelled: bool = False) -> Splits:
    """Load a data set and carve validation from its training images, unless it brings a ``val/`` of its own.

    Args:
        unlabelled: Put the images of ``data.unlabelled`` behind those to train on; who only evaluates wants none.

    Raises:
        MissingError: The data, or a place to keep its decoded images, is missing.
        DataError: The data was found but cannot be used.
    """
    dataset = load_dataset(spec, tell=tell)
    val: Split | None
    if dataset.val is not None:
        index = np.arange(len(dataset.train), dtype=np.int64)
        train, val = dataset.train, dataset.val
    else:
        carved = split_train_val(dataset.train.labels, val_fraction=spec.val_fraction, split_seed=spec.split_seed)
        index = carved.train
        train = dataset.train.subset(index) if len(carved.val) else dataset.train
        val = dataset.train.subset(carved.val) if len(carved.val) else None
    fingerprint = hashlib.sha256(f"split {dataset.fingerprint} ".encode() + index.astype("<i8").tobytes()).hexdigest()
    more = None
    if unlabelled and spec.unlabelled is not None:
        train, more = with_unlabelled(spec, train, fingerprint, tell, rest=dataset.rest)
    own_val = None if dataset.val is None else split_fingerprint(dataset.val, dataset.classes)
    note = "\n".join(each for each in (_note(spec, dataset, val), more and more.note) if each) or None
    return Splits(dataset, train, val, dataset.test, fingerprint, index, note, own_val, more)


def _without_validation(dataset: Dataset, val: Split | None) -> list[str]:
    """Classes that are trained on and not judged by: a carved split leaves a class its only image."""
    if val is None:
        return []
    return [dataset.classes[at] for at in np.setdiff1d(dataset.train.labels, val.labels)]


def _note(spec: DataSpec, dataset: Dataset, val: Split | None) -> str | None:
    notes = [dataset.note] if dataset.note else []
    if dataset.val is not None and spec.val_fraction > 0:
        notes.append(f"validation is the data set's own val/; data.val_fraction {spec.val_fraction:g} is ignored")
    if val is None and spec.val_fraction > 0:
        notes.append("no class has two training images to spare one for validation; there is no validation split")
    if none := _without_validation(dataset, val):
        notes.append(f"validation has no image of {several(none, 8)}: each has too few to spare one")
    if dataset.skipped:
        notes.append(f"skipped {dataset.skipped:,} unreadable image{'s' if dataset.skipped > 1 else ''}")
    if ignored := ignored_note(dataset.ignored):
        notes.append(ignored)
    return "\n".join(notes) or None
