"""What a student lost of its teacher: confusions, classes, and the images that it answers worst."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from distill.comparison.entries import EvaluatedModel
from distill.data.images import Split
from distill.errors import DataError
from distill.evaluation.assess import DatasetCache
from distill.report.page.content import ClassErrors, Hard, Lost, Opinion, Pair

__all__ = ["hardest", "images_asked", "pair_of"]

_MAX_LOST = 8
_MAX_HARD = 24
_THUMBNAIL = 96  # pixels: two dozen photographs in full would be megabytes


def pair_of(
    teacher: Sequence[EvaluatedModel], student: Sequence[EvaluatedModel], *, names: tuple[str, str]
) -> Pair | None:
    """Teacher and student side by side; None where they were not tested on the same images and classes.

    Args:
        teacher, student: Runs, of which the means are.
        names: What the page calls them.
    """
    labels = [each.label for each in student[-1].assessment.result.per_class]
    if [each.label for each in teacher[-1].assessment.result.per_class] != labels:
        return None
    if any(not np.array_equal(each.assessment.labels, student[-1].assessment.labels) for each in (*teacher, *student)):
        return None
    theirs, ours = (_confusion(group) for group in (teacher, student))
    difference = ours - theirs
    return Pair(
        teacher=names[0],
        student=names[1],
        classes=tuple(labels),
        difference=tuple(tuple(row) for row in difference.tolist()),
        errors=tuple(_errors(labels, theirs, ours)),
        lost=_changed(labels, theirs, ours, -difference),
        found=_changed(labels, theirs, ours, difference),
    )


def _confusion(group: Sequence[EvaluatedModel]) -> np.ndarray:
    """Mean counts ``(C, C)``."""
    return np.mean([np.asarray(each.assessment.result.confusion, dtype=np.float64) for each in group], axis=0)


def _errors(labels: Sequence[str], theirs: np.ndarray, ours: np.ndarray) -> list[ClassErrors]:
    counts = ours.sum(axis=1)
    shares = [1 - np.diagonal(each) / np.maximum(counts, 1) for each in (theirs, ours)]
    return [
        ClassErrors(label, round(n), *((float(each[i]) for each in shares) if n else (None, None)))
        for i, (label, n) in enumerate(zip(labels, counts.tolist(), strict=True))
    ]


def _changed(labels: Sequence[str], theirs: np.ndarray, ours: np.ndarray, order: np.ndarray) -> tuple[Lost, ...]:
    """Confusions by ``order``, as far as that is below 0."""
    wrong = np.where(np.eye(len(labels), dtype=bool), 0.0, order)
    places = np.argsort(wrong, axis=None, kind="stable")[:_MAX_LOST]
    pairs = [divmod(int(place), len(labels)) for place in places]
    return tuple(
        Lost(labels[i], labels[j], float(theirs[i, j]), float(ours[i, j])) for i, j in pairs if wrong[i, j] < 0
    )


def images_asked(entry: EvaluatedModel) -> Split:
    """The images that were asked about; nothing is downloaded.

    Raises:
        DistillError: They are not here, or are others by now.
    """
    data, spec = DatasetCache(), entry.recipe.data
    if data.content(spec, "test") != entry.assessment.content:
        raise DataError("the test images are not those that were asked about")
    return data.load(spec).test


def hardest(student: Sequence[EvaluatedModel], teacher: Sequence[EvaluatedModel], images: Split) -> tuple[Hard, ...]:
    """The images to whose class the student gives least probability, worst first, with what both take them for.

    Args:
        student: Runs, whose probabilities are averaged; so are the teacher's, of which there may be none.
    """
    labels = student[-1].assessment.labels
    names = [each.label for each in student[-1].assessment.result.per_class]
    ours, theirs = _probabilities(student), _probabilities(teacher) if teacher else None
    truth = ours[np.arange(len(labels)), labels]
    worst = np.argsort(truth, kind="stable")[:_MAX_HARD]
    pictures = images.take(worst)
    return tuple(
        Hard(
            png=_png(picture),
            side=min(picture.shape[-1], _THUMBNAIL),
            index=int(index),
            label=names[labels[index]],
            truth=float(truth[index]),
            student=_opinion(ours[index], names, labels[index]),
            teacher=None if theirs is None else _opinion(theirs[index], names, labels[index]),
            file=images.files[index] if images.files else None,
        )
        for index, picture in zip(worst.tolist(), pictures, strict=True)
    )


def _probabilities(group: Sequence[EvaluatedModel]) -> np.ndarray:
    """Mean probabilities ``(N, C)``."""
    total = np.zeros_like(group[-1].assessment.logits, dtype=np.float64)
    for each in group:
        shifted = np.exp(each.assessment.logits - each.assessment.logits.max(axis=1, keepdims=True), dtype=np.float64)
        total += shifted / shifted.sum(axis=1, keepdims=True)
    return total / len(group)


def _opinion(probabilities: np.ndarray, names: Sequence[str], label: int) -> Opinion:
    best = int(probabilities.argmax())
    return Opinion(names[best], float(probabilities[best]), best == label)


def _png(picture: np.ndarray) -> bytes:
    """A picture ``(3, S, S)`` uint8, not larger than a thumbnail."""
    image = Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0)))
    if image.width > _THUMBNAIL:
        image = image.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
