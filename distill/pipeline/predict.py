"""Classify pictures that no data set holds: files, and folders of files."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.data.decode import BadImageError, decode_image, strict_pillow
from distill.data.decode_pool import read_picture
from distill.data.layout import IMAGE_KINDS, IMAGE_SUFFIXES, is_hidden
from distill.data.prefetch import in_background
from distill.devices import resolve_device
from distill.errors import DataError, UsageError
from distill.evaluation.calibrate import Calibrated, temperature_of
from distill.evaluation.finite import require_finite
from distill.evaluation.target import evaluation_target
from distill.events import Note, StageProgress
from distill.models.classifier import Classifier
from distill.models.onnx_open import OnnxClassifier
from distill.models.open import open_model
from distill.pipeline.context import Options, in_asked_threads
from distill.references import count_of, run_of
from distill.results.rows import Guess, Prediction
from distill.runs import open_run
from distill.team.watch import watching

__all__ = ["BadFile", "Predictions", "find_pictures", "predict"]

_BATCH = 256
_THREADS = 4
_STAGE = "predicting"


@dataclass(frozen=True)
class BadFile:
    """A file that is no picture, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class Predictions:
    """What a network says of the pictures, in their order, and which files it could not be shown."""

    rows: tuple[Prediction, ...]
    bad: tuple[BadFile, ...] = ()

    def require_all(self) -> None:
        """Raise where there were bad files.

        Raises:
            DataError: Names every one of them.
        """
        if self.bad:
            lines = [f"{bad.file}: {bad.reason}" for bad in self.bad]
            count = f"{len(lines)} of {len(lines) + len(self.rows)} files could not be used"
            raise DataError("\n".join([count, *lines]), hint=f"pictures are {IMAGE_KINDS}")


@watching()
@in_asked_threads
def predict(
    reference: Any,
    paths: Sequence[str | Path],
    *,
    top: int = 5,
    teacher: Any = None,
    calibrated: bool = False,
    leave_out: Path | None = None,
    options: Options | None = None,
) -> Predictions:
    """Predict the most probable classes of each picture, decoded as in a data set, at the model's training size.

    Args:
        reference: A run (folder or name), or an exported file, which needs nothing else.
        paths: Pictures, and folders of pictures, searched to any depth.
        top: How many classes per picture; at most as many as there are.
        teacher: A run whose predictions are reported too.
        calibrated: Divide the logits by the temperature fitted on the model's validation images, which is fitted now
            where none is stored. The teacher's logits are left unchanged.
        leave_out: A file in those folders that is not an input: the picture of an earlier call's results.

    Raises:
        DataError: There are no files to classify, or ``calibrated`` has no validation images.
        UsageError: A path does not exist, or the teacher has other classes.

    Example:
        >>> answers = predict("quickstart_student", ["photo.png"], top=3)
        >>> len(answers.rows[0].top)
        3
    """
    options, top = options or Options(), count_of(top, "top")
    files = find_pictures(paths, leave_out=leave_out)
    student = _load(reference, options)
    if calibrated:
        student = _calibrated(student, options)
    other = None if teacher is None else _load(teacher, options)
    if other is not None and other.classes != student.classes:
        raise UsageError(
            f"{other.place} and {student.place} know different classes",
            hint="a teacher and its student share a data set",
        )
    rows: list[Prediction] = []
    bad: list[BadFile] = []
    sizes = [model.image_size for model in (student, other) if model is not None]
    for done, (names, pixels, failed) in enumerate(_decoded(files, sizes), start=1):
        bad += failed
        if names:
            rows += _classified(names, pixels, student, other, top=top)
        options.tell(StageProgress(_STAGE, min(done * _BATCH, len(files)), len(files)))
    return Predictions(tuple(rows), tuple(bad))


def _load(reference: Any, options: Options) -> Classifier:
    device = resolve_device(options.device)
    return open_model(run_of(reference), runs_dir=options.runs_dir, device=device, threads=options.threads or 1)


def _calibrated(model: Classifier, options: Options) -> Classifier:
    if isinstance(model, OnnxClassifier) and model.about.temperature is not None:
        options.tell(Note(f"{model.place} was calibrated when it was exported"))
        return model
    subject = model if isinstance(model, OnnxClassifier) else open_run(model.place, runs_dir=options.runs_dir)
    temperature = temperature_of(evaluation_target(subject, device=model.device), tell=options.tell)
    options.tell(Note(f"logits divided by {temperature.value:.4g}, fitted on {temperature.n:,} validation images"))
    return Calibrated(model, temperature.value)


# Files


def find_pictures(paths: Sequence[str | Path], *, leave_out: Path | None = None) -> list[str]:
    """The files named, and the pictures (by their names) below the folders named, each once, in order.

    Hidden files are passed over, links are followed, and no folder is entered twice.

    Raises:
        UsageError: A path does not exist.
        DataError: There is nothing to look at.
    """
    missing = [str(path) for path in paths if not os.path.lexists(path)]
    if missing:
        lines = [f"{path} does not exist" for path in missing]
        is_remote = any("://" in path for path in missing)
        hint = "download it first: only files are read" if is_remote else "name pictures, or folders of them"
        raise UsageError("\n".join(lines), hint=hint)
    pictures: dict[str, str] = {}  # by where they lie, as they are named first
    entered: set[tuple[int, int]] = set()
    for path in map(str, paths):
        for file in _below(path, entered) if os.path.isdir(path) else [path]:
            pictures.setdefault(os.path.abspath(file), file)
    kept = [file for file in pictures.values() if leave_out is None or not _is_same(file, leave_out)]
    if not kept:
        raise DataError(f"no picture in {', '.join(map(str, paths))}", hint=f"looked for {', '.join(IMAGE_SUFFIXES)}")
    return kept


def _below(folder: str, entered: set[tuple[int, int]]) -> Iterator[str]:
    for where, folders, files in os.walk(folder, followlinks=True, onerror=_cannot_list):
        status = os.stat(where)
        if (status.st_dev, status.st_ino) in entered:  # a link that leads back up
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        yield from (
            os.path.join(where, name)
            for name in sorted(files)
            if name.lower().endswith(IMAGE_SUFFIXES) and not is_hidden(name)
        )


def _cannot_list(error: OSError) -> None:
    raise DataError(f"cannot list {error.filename}: {error.strerror}") from error


def _is_same(file: str, other: Path) -> bool:
    return os.path.abspath(file) == os.path.abspath(other)


_Decoded = dict[int, np.ndarray] | BadFile


def _decoded(
    files: Sequence[str], sizes: Sequence[int]
) -> Iterator[tuple[list[str], dict[int, np.ndarray], list[BadFile]]]:
    """Batch by batch: the good files' names, their pixels ``(B, 3, S, S)`` by size S, and the bad files."""
    batches = (files[at : at + _BATCH] for at in range(0, len(files), _BATCH))
    decode = partial(_decode, sizes=set(sizes))
    with strict_pillow(), ThreadPoolExecutor(_THREADS) as pool:
        yield from in_background(_collected(batch, list(pool.map(decode, batch))) for batch in batches)


def _collected(
    files: Sequence[str], pictures: Sequence[_Decoded]
) -> tuple[list[str], dict[int, np.ndarray], list[BadFile]]:
    bad = [picture for picture in pictures if isinstance(picture, BadFile)]
    good = [(file, each) for file, each in zip(files, pictures, strict=True) if not isinstance(each, BadFile)]
    sizes = good[0][1] if good else {}
    return [file for file, _ in good], {size: np.stack([picture[size] for _, picture in good]) for size in sizes}, bad


def _decode(file: str, sizes: Collection[int]) -> _Decoded:
    try:
        content = read_picture(Path(file))
        return {size: decode_image(content, size) for size in sizes}
    except BadImageError as error:
        return BadFile(file, str(error))
    except OSError as error:
        return BadFile(file, f"cannot be read: {error.strerror or error}")


# Answers


def _classified(
    files: Sequence[str], pixels: dict[int, np.ndarray], student: Classifier, teacher: Classifier | None, *, top: int
) -> Iterator[Prediction]:
    ours = _top(student, pixels, top)
    theirs = [None] * len(files) if teacher is None else [guesses[0] for guesses in _top(teacher, pixels, 1)]
    for file, guesses, other in zip(files, ours, theirs, strict=True):
        folder = os.path.basename(os.path.dirname(os.path.abspath(file)))
        yield Prediction(file, guesses, folder if folder in student.classes else None, other)


def _top(model: Classifier, pixels: dict[int, np.ndarray], top: int) -> list[tuple[Guess, ...]]:
    images = torch.from_numpy(pixels[model.image_size])
    values, places = _probabilities(model, images).sort(dim=1, descending=True, stable=True)
    return [
        tuple(Guess(model.classes[place], value) for value, place in zip(row[:top], order[:top], strict=True))
        for row, order in zip(values.tolist(), places.tolist(), strict=True)
    ]


def _probabilities(model: Classifier, images: Tensor) -> Tensor:
    # asked as a bank asks: what a picture is taken for does not depend on the pictures beside it
    logits = model.logits(images).cpu().double()
    require_finite(logits, model.place)
    return logits.softmax(dim=1)
