"""What is measured of a file: its latency with the noise of the same minutes, its answers, and what they lose."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from distill.devices import using_threads
from distill.devices.kit_script import machine
from distill.errors import DataError, DistillError, MissingError, RunError
from distill.evaluation.assess import DatasetCache, assess, assess_classifier
from distill.evaluation.assessment import Assessment
from distill.evaluation.drop import judge_drop
from distill.evaluation.latency import measure_latency
from distill.evaluation.pace import PACE_SIDE, pace_graph
from distill.evaluation.statistics import share_interval
from distill.evaluation.target import evaluation_target
from distill.events import Note, Tell
from distill.models.onnx_open import OnnxClassifier, on_bytes, open_onnx, session
from distill.models.trained import load_trained
from distill.recipe import parse_recipe
from distill.results.certificate import Accuracy, Drop, Machine, Timing
from distill.results.figures import Latency
from distill.runs import RunFolder
from distill.teaching.identity import read_identity

__all__ = ["Measured", "accuracy_of", "drop_against", "here", "measured_quantities", "right_of", "time_file"]

Split = Literal["test", "val"]
_ROUNDS = 1000
_BATCHES = (1, 32)


def here() -> Machine:
    """This machine."""
    tree = machine()
    return Machine(**tree | {"instruction_set": tuple(tree["instruction_set"])})


def time_file(file: OnnxClassifier, *, threads: int, seconds: float, tell: Tell) -> dict[str, Timing]:
    """Latency from bytes to logits, of the file, of the same file opened once more, and of a fixed graph, in turn.

    The first two are the same thing: what they differ by is what this machine adds, now, to any comparison of two.

    Args:
        file: Open on as many ``threads``.
        seconds: For each of the three.
    """
    files = {"file": file, "again": open_onnx(file.path, threads=threads)}
    sides = {name: each.image_size for name, each in files.items()} | {"pace": PACE_SIDE}
    sessions = {name: each.run for name, each in files.items()}
    sessions["pace"] = session(pace_graph(), threads=threads, place="the fixed graph")
    with using_threads(threads):
        timings = measure_latency(
            {name: on_bytes(running, sides[name]) for name, running in sessions.items()},
            {name: (3, side, side) for name, side in sides.items()},
            device=torch.device("cpu"),
            batch_sizes=_BATCHES,
            rounds=_ROUNDS,
            seconds_per_model=seconds,
            tell=tell,
        )
    return {"1": _timing(timings, 1), "32": _timing(timings, 32)}


def _timing(timings: Mapping[str, Mapping[int, Latency]], size: int) -> Timing:
    one, other = timings["file"][size], timings["again"][size]
    noise = abs(one.median_ms - other.median_ms) / one.median_ms
    return Timing(
        median_ms=one.median_ms,
        p90_ms=one.p90_ms,
        p99_ms=one.p99_ms,
        n=one.n,
        noise=noise,
        pace_ms=timings["pace"][size].median_ms,
    )


def measured_quantities(file: OnnxClassifier, latency: Mapping[str, Timing]) -> dict[str, float]:
    """What budgets may be over."""
    sizes = {"params": float(file.about.params), "gmacs": file.about.gmacs, "size_mb": file.size_bytes / 1e6}
    return sizes | {f"latency_b{size}_ms": each.median_ms for size, each in latency.items()}


# Answers


@dataclass(frozen=True)
class Measured:
    """A file's answers on one split, with the accuracy that they come to."""

    accuracy: Accuracy
    assessment: Assessment
    file: OnnxClassifier

    @property
    def right(self) -> np.ndarray:
        """Which images it answers right, ``(N,)`` bool."""
        return self.assessment.correct


def accuracy_of(
    file: OnnxClassifier, split: Split, data: DatasetCache, tell: Tell, *, again: bool = False
) -> Measured | None:
    """Ask a file about a split; None where there are no such images.

    Args:
        again: Though its answers are stored.

    Raises:
        DistillError: The images are not here, or cannot be used.
    """
    tell(Note(f"{'test set' if split == 'test' else 'validation images'}: {file.place}"))
    try:
        assessment = assess(file, split=split, again=again, data=data, tell=tell)
    except DataError:
        if split == "test" or _has_validation(file, data):
            raise
        return None
    right = assessment.correct
    interval = share_interval(int(right.sum()), len(right))
    accuracy = Accuracy(
        split=split,
        images=len(right),
        top1=interval.estimate,
        low=interval.low,
        high=interval.high,
        content=assessment.content,
        right=_bits(right),
    )
    return Measured(accuracy, assessment, file)


def _has_validation(file: OnnxClassifier, data: DatasetCache) -> bool:
    splits = data.load(parse_recipe(file.about.recipe, source=file.place).data)
    return splits.val is not None and len(splits.val) > 0


def _bits(right: np.ndarray) -> str:
    return base64.b64encode(np.packbits(right).tobytes()).decode()


def right_of(text: str, n: int) -> np.ndarray:
    """Read back which images were answered right.

    Raises:
        RunError: These are not ``n`` bits.
    """
    try:
        packed = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8)
    except ValueError as error:
        raise RunError(f"a certificate is damaged: {error}") from error
    if len(packed) != -(-n // 8):
        raise RunError(f"a certificate is damaged: {len(packed)} bytes are not {n} answers")
    return np.unpackbits(packed, count=n).astype(bool)


def drop_against(
    measured: Measured,
    run: RunFolder,
    reference: Literal["run", "teacher", "named"],
    *,
    allowed: float | None,
    prove: bool,
    device: torch.device,
    data: DatasetCache,
) -> Drop | str:
    """What a file loses against a run on the split it was measured on, or why that cannot be said."""
    split = measured.accuracy.split
    try:
        theirs = _asked(measured, run, device, data)
    except DistillError as error:
        return f"not held against {run.path} on {split} images: {error.message}"
    verdict = judge_drop(measured.right, theirs.correct, allowed=0.0 if allowed is None else allowed)
    return Drop(
        reference=reference,
        run=str(run.path),
        weights_sha256=read_identity(run, device=torch.device("cpu")).weights,
        split=split,
        images=verdict.n,
        content=measured.accuracy.content,
        reference_top1=verdict.reference,
        estimate=verdict.drop.estimate,
        low=verdict.drop.low,
        high=verdict.drop.high,
        allowed=allowed,
        prove=prove,
        verdict=None if allowed is None else verdict.word,
        needed=None if allowed is None else verdict.needed,
        right=_bits(theirs.correct),
    )


def _asked(measured: Measured, run: RunFolder, device: torch.device, data: DatasetCache) -> Assessment:
    """What a run answers about a file's images: as it is kept where these are its own split, else asked now.

    A teacher may have been trained on another split of the same data, or lie beside no data at all.
    """
    split = measured.accuracy.split
    same = _same_images(measured, run, data)
    if same is not False:  # else it would be asked about all of its own images for nothing
        try:
            theirs = assess(run, split=split, device=device, data=data)
            if same or theirs.content == measured.accuracy.content:
                return theirs
        except (MissingError, DataError):  # its own are not here, or it has none
            pass
    if run.recipe().data.side != measured.file.image_size:
        raise DataError("it was asked about others")
    spec = evaluation_target(measured.file).spec
    return assess_classifier(load_trained(run, device=device), data.load(spec), spec, split=split)


def _same_images(measured: Measured, run: RunFolder, data: DatasetCache) -> bool | None:
    """Whether a run's own images are the file's, decoded at whatever size; None where they are not here."""
    ours, spec = measured.accuracy, run.recipe().data
    try:
        if data.content(spec, ours.split) == ours.content:
            return True
        if spec.side == measured.file.image_size:
            return False
        resized = spec.model_copy(update={"image_size": measured.file.image_size})
        return data.content(resized, ours.split) == ours.content
    except DistillError:
        return None
