"""What ``distill evaluate`` keeps beside a run or a file, written whole and read without torch or a model.

``read_evaluation(run.evaluation)`` is all that a page or a picture needs; ``read_answers`` has the logits, too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distill.errors import DistillError, RunError
from distill.evaluation.assessment import Assessment
from distill.evaluation.confidence import reliability
from distill.events import Note, Tell
from distill.files import json_sha256, read_json, save_array, sha256_file, write_json, write_with
from distill.results.calibration import Reliability, RiskCoverage, Temperature
from distill.results.corruptions import CorruptionResult
from distill.results.evaluations import Evaluation
from distill.results.metrics import EvalResult

__all__ = [
    "Seal",
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
_ARRAYS = ("logits", "labels")
_ABOUT = ("fingerprint", "content", "device_type", "precision")


class Seal(NamedTuple):
    """What stored answers belong to.

    Attributes:
        weights: Hex sha256 of the file that holds them.
        network: What else decides the answers of a run; None for an exported file.
    """

    weights: str
    network: str | None


def evaluation_of_file(path: Path) -> Path:
    """The folder of what an exported file answered: beside it, by its name without its ending."""
    return path.parent / "evaluation" / path.stem


def read_evaluation(folder: Path, split: str = "test", *, place: str | None = None) -> Evaluation | None:
    """What is stored in an ``evaluation`` folder; None where the split was not evaluated, or its files are damaged.

    A temperature, or figures on corrupted images, of other weights or images are left out.

    Args:
        folder: A run's ``evaluation``, or :func:`evaluation_of_file`.
        split: ``test`` or ``val``.
        place: Whose it is; None: the folder's.
    """
    found = read_answers(folder, split, place=place)
    if found is None:
        return None
    answers, seal = found
    temperature = read_temperature(folder, seal)
    after = None if temperature is None else temperature.value
    return Evaluation(
        run=answers.place,
        split=split,
        result=answers.result,
        reliability=answers.reliability,
        risk_coverage=answers.risk_coverage,
        temperature=temperature,
        calibrated=None if after is None else reliability(answers.logits, answers.labels, temperature=after),
        corruptions=_corruptions(folder, answers, seal),
    )


def _corruptions(folder: Path, answers: Assessment, seal: Seal) -> CorruptionResult | None:
    document = read_sealed(folder / f"{answers.split}_corruptions.json", seal)
    try:
        if document is None or not document["result"] or document["content"] != answers.content:
            return None  # of other images than the answers are, it is no figure beside theirs
        return CorruptionResult.from_json(document["result"])
    except _DAMAGE:
        return None


# Answers on a split


def write_answers(folder: Path, answers: Assessment, seal: Seal) -> None:
    """Keep them; the document comes last, and says which arrays are its own."""
    split = answers.split
    for kind in _ARRAYS:
        write_with(folder / f"{split}_{kind}.npy", partial(save_array, array=getattr(answers, kind)))
    about = {name: getattr(answers, name) for name in _ABOUT}
    files = {kind: sha256_file(folder / f"{split}_{kind}.npy") for kind in _ARRAYS}
    made = {name: getattr(answers, name).to_json() for name in ("result", "reliability", "risk_coverage")}
    write_sealed(folder / f"{split}.json", {**about, "files": files, **made}, seal)


def read_answers(folder: Path, split: str, *, place: str | None = None) -> tuple[Assessment, Seal] | None:
    """What is stored, and what it belongs to; None where it is absent or damaged.

    Args:
        place: Whose answers they are; None: the folder's.
    """
    try:
        document = _read(folder / f"{split}.json")
        paths = {kind: folder / f"{split}_{kind}.npy" for kind in _ARRAYS}
        if any(sha256_file(path) != document["files"][kind] for kind, path in paths.items()):
            return None
        logits, labels = (np.load(path, allow_pickle=False) for path in paths.values())
        result = EvalResult.from_json(document["result"])
        if len(logits) != len(labels) or len(labels) != result.n:
            return None
        answers = Assessment(
            place=place or str(folder),
            split=split,
            result=result,
            reliability=Reliability.from_json(document["reliability"]),
            risk_coverage=RiskCoverage.from_json(document["risk_coverage"]),
            logits=logits,
            labels=labels,
            **{name: document[name] for name in _ABOUT},
        )
        return answers, Seal(document["weights"], document["network"])
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


def write_sealed(path: Path, document: Mapping[str, Any], seal: Seal) -> None:
    """Write a document with its own digest and what it belongs to."""
    whole = {**seal._asdict(), **document}
    write_json(path, whole | {"sha256": json_sha256(whole)})


def read_sealed(path: Path, seal: Seal) -> dict[str, Any] | None:
    """What :func:`write_sealed` wrote; None where it is absent, damaged, or of other weights or another network."""
    try:
        document = _read(path)
        return document if (document["weights"], document["network"]) == seal else None
    except _DAMAGE:
        return None


def _read(path: Path) -> dict[str, Any]:
    document = read_json(path)
    if document.pop("sha256") != json_sha256(document):
        raise ValueError("changed since it was written")
    return document


def write_temperature(folder: Path, found: Temperature, seal: Seal, *, content: str) -> None:
    """Keep a fitted temperature, and a digest of the validation images it was fitted on."""
    write_sealed(folder / "temperature.json", {"content": content, "temperature": found.to_json()}, seal)


def read_temperature(folder: Path, seal: Seal, *, still: Callable[[str], bool] = lambda _: True) -> Temperature | None:
    """The temperature fitted for these weights, where one is stored.

    Args:
        still: Whether the validation images are those of a digest, on which it was fitted.
    """
    document = read_sealed(folder / "temperature.json", seal)
    try:
        if document is None or not still(document["content"]):
            return None
        return Temperature.from_json(document["temperature"])
    except _DAMAGE:
        return None
