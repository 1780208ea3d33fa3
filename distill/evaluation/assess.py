"""A trained run, or an exported file, on test or validation images, once: metrics and logits are kept beside it.

Only here is a network asked about the test set: for ``evaluate``, for ``compare``, and for a bank, which stores what
its teacher answers. Nothing that trains or chooses asks for it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from distill.data.batches import Loader
from distill.data.cifar_files import official_set
from distill.data.images import Split, pixel_digest
from distill.data.splits import Splits, load_splits
from distill.data.torchvision_sets import NAMED_CLASSES, is_here
from distill.devices import fast_kernels
from distill.errors import DataError, DistillError, MissingError, UsageError
from distill.evaluation.askable import refuse_drawn_anew, require_classes
from distill.evaluation.assessment import Assessment
from distill.evaluation.confidence import reliability, risk_coverage
from distill.evaluation.metrics import evaluate_logits, predict_logits
from distill.evaluation.stored import keeping, read_answers, write_answers
from distill.evaluation.target import EvaluationTarget, evaluation_target
from distill.evaluation.tta import Mirrored
from distill.events import Note, Tell, silent
from distill.files import expanded
from distill.models.classifier import Classifier
from distill.models.onnx_open import OnnxClassifier
from distill.recipe.schema import DataSpec
from distill.runs import RunFolder

__all__ = [
    "IMAGES_OF",
    "DatasetCache",
    "assess",
    "assess_classifier",
    "evaluate_parts",
    "split_content",
]

_BATCH = 256
IMAGES_OF = {"test": "test images", "val": "validation images"}


class DatasetCache:
    """Data sets for several assessments: each is digested once, and the one loaded last is kept."""

    def __init__(self) -> None:
        self._last: tuple[DataSpec, Splits] | None = None
        self._contents: dict[tuple[DataSpec, str], str | DistillError] = {}

    def load(self, spec: DataSpec) -> Splits:
        """The splits of a data set, which is downloaded where it is absent and can be."""
        if self._last is None or self._last[0] != spec:
            self._last = None  # two large ones need not fit into memory together
            self._last = (spec, load_splits(spec))
        return self._last[1]

    def part(self, spec: DataSpec, split: str, name: str) -> Split:
        """The images of a split.

        Raises:
            DataError: ``name`` has no such images.
        """
        return _part(self.load(spec), split, name)

    def content(self, spec: DataSpec, split: str) -> str:
        """Hex sha256 of a split's images, labels and class names; nothing is downloaded for it.

        Raises:
            MissingError: The data is not here.
            DataError: It cannot be used, or has no such split.
        """
        if (spec, split) not in self._contents:
            try:
                self._contents[spec, split] = self._read(spec, split)
            except DistillError as error:  # so that ten runs look for it once
                self._contents[spec, split] = error
        content = self._contents[spec, split]
        if isinstance(content, DistillError):
            raise content
        return content

    def why_unread(self, spec: DataSpec, split: str) -> str | None:
        """Why a split's images could not be looked at; None where they were, or nobody tried."""
        content = self._contents.get((spec, split))
        return content.message if isinstance(content, DistillError) else None

    def are_still(self, content: str | None, spec: DataSpec, split: str) -> bool:
        """Whether :meth:`content` of a split is still this; yes where its images are not here."""
        try:
            return content == self.content(spec, split)
        except DistillError:
            return True

    def is_same_at(self, spec: DataSpec, split: str, *, side: int, content: str | None) -> bool:
        """Whether a split has this :meth:`content` once it is decoded at another ``side``; no where nobody can tell."""
        if spec.side == side:
            return False
        try:
            return self.content(spec.model_copy(update={"image_size": side}), split) == content
        except DistillError:  # not here
            return False

    def _read(self, spec: DataSpec, split: str) -> str:
        if not _is_here(spec):
            raise MissingError(f"{spec.name} is not in {spec.root}")
        return split_content(self.load(spec), split, name=spec.name)


def _is_here(spec: DataSpec) -> bool:
    if spec.name in NAMED_CLASSES:
        return is_here(spec)
    if spec.name not in ("cifar10", "cifar100"):
        return True  # made, or never downloaded
    return os.path.isdir(expanded(spec.root) / official_set(spec.name).folder)


def split_content(splits: Splits, split: str = "test", *, name: str = "the data") -> str:
    """Hex sha256 of a split's images, labels and class names.

    Raises:
        DataError: There is no such split.
    """
    part, classes = _part(splits, split, name), splits.dataset.classes
    digest = hashlib.sha256(f"images {part.image_size} {len(part)} {pixel_digest(part)} ".encode())
    labels = np.ascontiguousarray(part.labels, dtype="<i8")
    digest.update(hashlib.sha256(labels.tobytes()).hexdigest().encode())
    digest.update("\0".join(classes).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def assess(
    subject: RunFolder | OnnxClassifier | EvaluationTarget,
    *,
    split: str = "test",
    device: torch.device | None = None,
    again: bool = False,
    data: DatasetCache | None = None,
    mirrored: bool = False,
    tell: Tell = silent,
) -> Assessment:
    """Evaluate a run's best checkpoint, or a file, or read what an earlier call found on the same images.

    Where the data is no longer here, what was found on it stands. What is found beside what may only be read is not
    kept.

    Args:
        split: ``test``, or ``val`` (the part of the training images that picked the checkpoint).
        device: Where a run's network goes; None: the CPU.
        again: Ask the network even where the answers are stored.
        data: Shared by the assessments of several.
        mirrored: Test-time augmentation: with the mean of an image's logits and its mirror image's. What is found so
            is not stored, and nothing stored is read: no table ever takes it for the run's own.
        tell: Told when the network is asked, where the answers are stored ones of images that cannot be looked at, and
            where they could not be stored.

    Raises:
        UsageError: There is no such split.
        DataError: The split is drawn from other images than when it was trained, and may hold some that taught it.
    """
    if split not in IMAGES_OF:
        raise UsageError(f"no split {split!r}", hint="test or val")
    target = subject if isinstance(subject, EvaluationTarget) else evaluation_target(subject, device=device)
    data = data or DatasetCache()
    stored = None if again or mirrored else _stored(target, split)
    what = IMAGES_OF[split]
    if stored is not None and data.are_still(stored.content, target.spec, split):
        if reason := data.why_unread(target.spec, split):
            tell(Note(f"{target.place} answered its {what} earlier; they cannot be looked at now: {reason}", "warning"))
        return stored
    tell(Note(f"measuring {target.place} on its {what}"))
    splits = data.load(target.spec)
    if stored is not None and splits.is_drawn_anew(split, target.trained_on):
        return stored  # as where the data is no longer here
    refuse_drawn_anew(splits, split, target.spec, target.place, target.trained_on)
    if mirrored:
        return assess_classifier(Mirrored(target.load()), splits, target.spec, split=split)
    found = assess_classifier(target.load(), splits, target.spec, split=split)
    if not target.keeps:
        return found
    with keeping(f"{target.place}: its answers are", tell):
        write_answers(target.folder, found, target.seal)
        return found
    return replace(found, is_kept=False)


def _stored(target: EvaluationTarget, split: str) -> Assessment | None:
    """What is stored, or None where it is absent, damaged, or of other weights or another network."""
    found = read_answers(target.folder, split, place=target.place)
    return None if found is None or found[1] != target.seal else found[0]


def assess_classifier(model: Classifier, splits: Splits, spec: DataSpec, *, split: str = "test") -> Assessment:
    """Evaluate whatever classifies pixels on one split of its data."""
    part = _part(splits, split, model.name)
    require_classes(splits, spec, model)
    loader = Loader(part, device=model.device, fill=None)
    with fast_kernels(model.device):
        logits = predict_logits(model.logits, (batch.images for batch in loader.plain(_BATCH)))
    labels = np.asarray(part.labels)
    return Assessment(
        place=model.place,
        split=split,
        **evaluate_parts(logits.numpy(), labels, model.classes, place=model.place),
        labels=labels,
        fingerprint=splits.fingerprint,
        content=split_content(splits, split),
        device_type=model.device.type,
        precision=model.runtime.rpartition(" ")[2],
    )


def evaluate_parts(
    logits: np.ndarray, labels: np.ndarray, classes: Sequence[str], *, place: str = "the model"
) -> dict[str, Any]:
    """The parts of an :class:`Assessment` that answers decide, and the answers."""
    return {
        "result": evaluate_logits(torch.from_numpy(logits), torch.from_numpy(labels), classes, place=place),
        "reliability": reliability(logits, labels),
        "risk_coverage": risk_coverage(logits, labels),
        "logits": logits,
    }


def _part(splits: Splits, split: str, name: str) -> Split:
    part = splits.test if split == "test" else splits.val
    if part is None or len(part) == 0:
        if split == "test":
            raise DataError(f"{name} has no test images")
        raise DataError(f"{name} has no validation images (data.val_fraction: 0)", hint="--split test")
    return part
