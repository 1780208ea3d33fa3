"""What ``distill evaluate`` keeps beside a run or a file, written whole and read without torch or a model.

``read_evaluation(run.evaluation)`` is all that a page or a picture needs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from distill.errors import DistillError, RunError
from distill.evaluation.confidence import reliability
from distill.events import Note, Tell
from distill.files import json_sha256, read_json, save_array, sha256_file, write_json, write_with
from distill.results.calibration import Reliability, RiskCoverage, Temperature
from distill.results.corruptions import CorruptionResult
from distill.results.metrics import EvalResult

__all__ = [
    "ABOUT",
    "StoredEvaluation",
    "StoredOutputs",
    "evaluation_of_file",
    "keeping",
    "read_answers",
    "read_evaluation",
    "read_sealed",
    "read_temperature",
    "write_answers",
    "write_sealed",
    "write_temperature",
]

_DAMAGE = (RunError, OSError, ValueError, KeyError, TypeError, AttributeError, EOFError)
_KINDS = ("logits", "labels")
#: What is kept of where and on what a network was asked.
ABOUT = ("fingerprint", "content", "device_type", "precision")


@dataclass(frozen=True)
class StoredEvaluation:
    """All that is known of a model on one split; what is None was not asked for, or is of other weights.

    Attributes:
        logits: float32 ``(N, C)``, of the images in the split's order; ``labels`` int64 ``(N,)``.
        calibrated: Reliability with the logits divided by ``temperature``.
        corruptions: On corrupted images of this split.
    """

    split: str
    result: EvalResult
    reliability: Reliability
    risk_coverage: RiskCoverage
    logits: np.ndarray
    labels: np.ndarray
    temperature: Temperature | None = None
    calibrated: Reliability | None = None
    corruptions: CorruptionResult | None = None


def evaluation_of_file(path: Path) -> Path:
    """The folder of what an exported file answered: beside it, by its name without its ending."""
    return path.parent / "evaluation" / path.stem


def read_evaluation(folder: Path, split: str = "test") -> StoredEvaluation | None:
    """What is stored in an ``evaluation`` folder; None where the split was not evaluated, or its files are damaged.

    Args:
        folder: A run's ``evaluation``, or :func:`evaluation_of_file`.
        split: ``test`` or ``val``.
    """
    answers = read_answers(folder, split)
    if answers is None:
        return None
    logits, labels = answers.logits, answers.labels
    temperature = read_temperature(folder, weights=answers.weights, network=answers.network)
    calibrated = None if temperature is None else reliability(logits, labels, temperature=temperature.value)
    return StoredEvaluation(
        split=split,
        result=answers.result,
        reliability=answers.reliability,
        risk_coverage=answers.risk_coverage,
        logits=logits,
        labels=labels,
        temperature=temperature,
        calibrated=calibrated,
        corruptions=_corruptions(folder, split, answers),
    )


def _corruptions(folder: Path, split: str, answers: StoredOutputs) -> CorruptionResult | None:
    document = read_sealed(folder / f"{split}_corruptions.json", weights=answers.weights, network=answers.network)
    try:
        if document is None or not document["result"] or document["content"] != answers.about["content"]:
            return None  # of other images than the answers are, it is no figure beside theirs
        return CorruptionResult.from_json(document["result"])
    except _DAMAGE:
        return None


# Answers on a split


@dataclass(frozen=True)
class StoredOutputs:
    """What a network answered on one split, with what was made of it.

    Attributes:
        weights: Hex sha256 of the file that holds them; ``network`` is what else decides the answers of a run, None
            for an exported file.
        about: By the names of :data:`ABOUT`.
    """

    weights: str
    network: str | None
    about: Mapping[str, Any]
    result: EvalResult
    reliability: Reliability
    risk_coverage: RiskCoverage
    logits: np.ndarray
    labels: np.ndarray


def write_answers(folder: Path, split: str, answers: StoredOutputs) -> None:
    """Keep them; the document comes last, and says which arrays are its own."""
    for kind in _KINDS:
        write_with(folder / f"{split}_{kind}.npy", partial(save_array, array=getattr(answers, kind)))
    files = {kind: sha256_file(folder / f"{split}_{kind}.npy") for kind in _KINDS}
    made = {name: getattr(answers, name).to_json() for name in ("result", "reliability", "risk_coverage")}
    more = {**answers.about, "files": files, **made}
    write_sealed(folder / f"{split}.json", more, weights=answers.weights, network=answers.network)


def read_answers(folder: Path, split: str) -> StoredOutputs | None:
    """What is stored; None where it is absent or damaged."""
    try:
        document = _read(folder / f"{split}.json")
        paths = {kind: folder / f"{split}_{kind}.npy" for kind in _KINDS}
        if any(sha256_file(path) != document["files"][kind] for kind, path in paths.items()):
            return None
        logits, labels = (np.load(path, allow_pickle=False) for path in paths.values())
        result = EvalResult.from_json(document["result"])
        if len(logits) != len(labels) or len(labels) != result.n:
            return None
        return StoredOutputs(
            weights=document["weights"],
            network=document["network"],
            about={name: document[name] for name in ABOUT},
            result=result,
            reliability=Reliability.from_json(document["reliability"]),
            risk_coverage=RiskCoverage.from_json(document["risk_coverage"]),
            logits=logits,
            labels=labels,
        )
    except _DAMAGE:
        return None


@contextlib.contextmanager
def keeping(what: str, tell: Tell) -> Iterator[None]:
    """Go on where the system refuses to store what was measured: it is in memory, and that it is not kept is told."""
    try:
        yield
    except DistillError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        tell(Note(f"{error.message}; {what} not kept", "warning"))


# Documents that belong to given weights


def write_sealed(path: Path, document: Mapping[str, Any], *, weights: str, network: str | None) -> None:
    """Write a document with its own digest and what it belongs to."""
    whole = {"weights": weights, "network": network, **document}
    write_json(path, whole | {"sha256": json_sha256(whole)})


def read_sealed(path: Path, *, weights: str, network: str | None) -> dict[str, Any] | None:
    """What :func:`write_sealed` wrote; None where it is absent, damaged, or of other weights or another network."""
    try:
        document = _read(path)
        return document if (document["weights"], document["network"]) == (weights, network) else None
    except _DAMAGE:
        return None


def _read(path: Path) -> dict[str, Any]:
    document = read_json(path)
    if document.pop("sha256") != json_sha256(document):
        raise ValueError("changed since it was written")
    return document


def write_temperature(folder: Path, found: Temperature, *, weights: str, network: str | None, content: str) -> None:
    """Keep a fitted temperature, and a digest of the validation images it was fitted on."""
    document = {"content": content, "temperature": found.to_json()}
    write_sealed(folder / "temperature.json", document, weights=weights, network=network)


def read_temperature(
    folder: Path, *, weights: str, network: str | None, still: Callable[[str], bool] = lambda _: True
) -> Temperature | None:
    """The temperature fitted for these weights, where one is stored.

    Args:
        still: Whether the validation images are those of a digest, on which it was fitted.
    """
    document = read_sealed(folder / "temperature.json", weights=weights, network=network)
    try:
        if document is None or not still(document["content"]):
            return None
        return Temperature.from_json(document["temperature"])
    except _DAMAGE:
        return None
