"""A trained run on the test set, once: its metrics and its logits are kept beside it.

The test set is read here and nowhere else: for ``evaluate``, for ``compare``, and for a bank, which stores what its
teacher answers. Nothing that trains or chooses asks for it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.data.batches import Loader
from distill.data.cifar_files import official_set
from distill.data.images import Split, pixel_digest
from distill.data.splits import Splits, load_splits
from distill.errors import DataError, DistillError, MissingError, RunError, UsageError
from distill.evaluate.metrics import EvalResult, PerClass, evaluate_logits, predict_logits
from distill.files import read_json, sha256_file, write_json, write_with
from distill.models.trained import Trained, load_trained
from distill.recipe.schema import DataSpec
from distill.runs import RunFolder
from distill.runs.checkpoints import MODEL_FILE, best_checkpoint

__all__ = ["Assessment", "DataSets", "assess", "assess_trained", "labels_sha256"]

_BATCH = 256
_ABOUT = ("content", "device_type", "precision")  # absent from what older versions stored


@dataclass(frozen=True)
class Assessment:
    """What a run answers on one split.

    Attributes:
        logits: float32 ``(N, C)``.
        labels: int64 ``(N,)``.
        fingerprint: Of the data and the split it was trained on.
        content: Hex sha256 of the images, labels and class names it was asked about; None where an older version asked.
        device_type: Where it was asked (``cpu``, ``cuda``), and in which ``precision``; None as above.
    """

    run: str
    split: str
    result: EvalResult
    logits: np.ndarray
    labels: np.ndarray
    fingerprint: str
    content: str | None = None
    device_type: str | None = None
    precision: str | None = None


class DataSets:
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
        found = self._contents[spec, split]
        if isinstance(found, DistillError):
            raise found
        return found

    def _read(self, spec: DataSpec, split: str) -> str:
        if not _is_here(spec):
            raise MissingError(f"{spec.name} is not in {spec.root}")
        splits = self.load(spec)
        return _content(_part(splits, split, spec.name), splits.dataset.classes)


def _is_here(spec: DataSpec) -> bool:
    if spec.name not in ("cifar10", "cifar100"):
        return True  # made, or never downloaded
    return os.path.isdir(Path(spec.root).expanduser() / official_set(spec.name).folder)


def _content(part: Split, classes: tuple[str, ...]) -> str:
    digest = hashlib.sha256(f"images {part.image_size} {len(part)} {pixel_digest(part)} ".encode())
    digest.update(labels_sha256(part.labels).encode())
    digest.update("\0".join(classes).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def labels_sha256(labels: np.ndarray) -> str:
    """Hex sha256 of labels in their order: equal for one test set at any image size."""
    return hashlib.sha256(np.ascontiguousarray(labels, dtype="<i8").tobytes()).hexdigest()


def assess(
    run: RunFolder, *, split: str = "test", device: torch.device, again: bool = False, data: DataSets | None = None
) -> Assessment:
    """Evaluate a run's best checkpoint, or read what an earlier call found on the same images.

    Where the data is no longer here, what was found on it stands.

    Args:
        split: ``test``, or ``val`` (the part of the training images that picked the checkpoint).
        again: Ask the network even where the answers are stored.
        data: Shared by the assessments of several runs.
    """
    if split not in ("test", "val"):
        raise UsageError(f"no split {split!r}", hint="test or val")
    folder, data = run.path / "evaluation", data or DataSets()
    weights = _weights_id(run)
    stored = None if again else _read(folder, split, weights, run)
    if stored is not None and _stands(stored, run, data):
        return stored
    trained = load_trained(run, device=device)
    found = assess_trained(trained, data.load(trained.recipe.data), split=split)
    _write(folder, found, weights)
    return found


def _stands(stored: Assessment, run: RunFolder, data: DataSets) -> bool:
    spec = run.recipe().data
    try:
        return stored.content == data.content(spec, stored.split)
    except DistillError:  # nothing to ask again about
        return True


def assess_trained(trained: Trained, splits: Splits, *, split: str = "test") -> Assessment:
    """Evaluate a network on one split of its data."""
    part = _part(splits, split, trained.recipe.name)
    if tuple(splits.dataset.classes) != trained.classes:
        raise DataError(
            f"{trained.recipe.data.root}: the classes are not those that {trained.run.path} was trained on",
            hint="point data.root at the data set of that run",
        )
    loader = Loader(part, device=trained.device, fill=None)
    logits = predict_logits(trained, (batch.images for batch in loader.plain(_BATCH)))
    result = evaluate_logits(logits, torch.from_numpy(np.asarray(part.labels)), trained.classes)
    return Assessment(
        run=str(trained.run.path),
        split=split,
        result=result,
        logits=logits.numpy(),
        labels=np.asarray(part.labels),
        fingerprint=splits.fingerprint,
        content=_content(part, splits.dataset.classes),
        device_type=trained.device.type,
        precision=trained.precision,
    )


def _part(splits: Splits, split: str, name: str) -> Split:
    part = splits.test if split == "test" else splits.val
    if part is None or len(part) == 0:
        raise DataError(f"{name} has no validation images (data.val_fraction: 0)", hint="--split test")
    return part


def _weights_id(run: RunFolder) -> str:
    return sha256_file(best_checkpoint(run.checkpoints) / MODEL_FILE)


def _write(folder: Path, found: Assessment, weights: str) -> None:
    write_with(folder / f"{found.split}_logits.npy", lambda aside: _save(aside, found.logits))
    write_with(folder / f"{found.split}_labels.npy", lambda aside: _save(aside, found.labels))
    files = {kind: sha256_file(folder / f"{found.split}_{kind}.npy") for kind in ("logits", "labels")}
    result = dataclasses.asdict(found.result)
    about = {name: getattr(found, name) for name in ("fingerprint", *_ABOUT)}
    document = {"weights": weights, **about, "files": files, "result": result}
    write_json(folder / f"{found.split}.json", document | {"sha256": _digest(document)})


def _digest(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _save(path: Path, array: np.ndarray) -> None:
    with open(path, "wb") as file:  # np.save by name would add a suffix
        np.save(file, array, allow_pickle=False)


def _read(folder: Path, split: str, weights: str, run: RunFolder) -> Assessment | None:
    """What is stored, or None where it is absent, damaged, or of other weights."""
    try:
        document = read_json(folder / f"{split}.json")
        if document.pop("sha256") != _digest(document) or document["weights"] != weights:
            return None
        paths = {kind: folder / f"{split}_{kind}.npy" for kind in ("logits", "labels")}
        if any(sha256_file(path) != document["files"][kind] for kind, path in paths.items()):
            return None
        logits, labels = (np.load(path, allow_pickle=False) for path in paths.values())
        fields = document["result"]
        fields["per_class"] = tuple(PerClass(**entry) for entry in fields["per_class"])
        fields["confusion"] = tuple(tuple(row) for row in fields["confusion"])
        result = EvalResult(**fields)
    except (RunError, OSError, ValueError, KeyError, TypeError, AttributeError, EOFError):
        return None
    if len(logits) != len(labels) or len(labels) != result.n:
        return None
    about = {name: document.get(name) for name in _ABOUT}
    return Assessment(str(run.path), split, result, logits, labels, document["fingerprint"], **about)
