"""A trained run on the test set, once: its metrics and its logits are kept beside it.

The test set is read here and nowhere else.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.data.batches import Loader
from distill.data.splits import Splits, load_splits
from distill.errors import DataError, RunError, UsageError
from distill.evaluate.metrics import EvalResult, PerClass, evaluate_logits, predict_logits
from distill.files import read_json, sha256_file, write_json, write_with
from distill.runs import RunFolder
from distill.train.checkpoint import MODEL_FILE, best_checkpoint
from distill.train.trained import Trained, load_trained

__all__ = ["Assessment", "assess", "assess_trained"]

_BATCH = 256


@dataclass(frozen=True)
class Assessment:
    """What a run answers on one split.

    Attributes:
        logits: float32 ``(N, C)``.
        labels: int64 ``(N,)``.
        fingerprint: Of the data and the split it was trained on.
    """

    run: str
    split: str
    result: EvalResult
    logits: np.ndarray
    labels: np.ndarray
    fingerprint: str


def assess(run: RunFolder, *, split: str = "test", device: torch.device, again: bool = False) -> Assessment:
    """Evaluate a run's best checkpoint, or read what an earlier call found.

    Args:
        split: ``test``, or ``val`` (the part of the training images that picked the checkpoint).
        again: Ask the network even where the answers are stored.
    """
    if split not in ("test", "val"):
        raise UsageError(f"no split {split!r}", hint="test or val")
    folder = run.path / "evaluation"
    weights = _weights_id(run)
    if not again and (stored := _read(folder, split, weights, run)) is not None:
        return stored
    trained = load_trained(run, device=device)
    found = assess_trained(trained, load_splits(trained.recipe.data), split=split)
    _write(folder, found, weights)
    return found


def assess_trained(trained: Trained, splits: Splits, *, split: str = "test") -> Assessment:
    """Evaluate a network on one split of its data."""
    part = splits.test if split == "test" else splits.val
    if part is None or len(part) == 0:
        raise DataError(f"{trained.recipe.name} has no validation images (data.val_fraction: 0)", hint="--split test")
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
    )


def _weights_id(run: RunFolder) -> str:
    return sha256_file(best_checkpoint(run.checkpoints) / MODEL_FILE)


def _write(folder: Path, found: Assessment, weights: str) -> None:
    write_with(folder / f"{found.split}_logits.npy", lambda aside: _save(aside, found.logits))
    write_with(folder / f"{found.split}_labels.npy", lambda aside: _save(aside, found.labels))
    files = {kind: sha256_file(folder / f"{found.split}_{kind}.npy") for kind in ("logits", "labels")}
    result = dataclasses.asdict(found.result)
    document = {"weights": weights, "fingerprint": found.fingerprint, "files": files, "result": result}
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
    return Assessment(str(run.path), split, result, logits, labels, document["fingerprint"])
