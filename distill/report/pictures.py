"""A grid of pictures with what they are and what a model takes them for."""

from __future__ import annotations

import io
from collections.abc import Sequence
from math import ceil
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from distill.data.decode import decode_image, strict_pillow
from distill.files import regular
from distill.report.figure import drawing, save
from distill.results.rows import Prediction
from distill.text import cut, plain

__all__ = ["disagreements_first", "plot_predictions"]

_MAX_PICTURES = 100
_COLUMNS = 8
_LARGEST_SIDE = 240  # pixels; a hundred photographs in full would take gigabytes
_RIGHT, _WRONG, _UNKNOWN = "#00664B", "#B34700", "#222222"


def plot_predictions(predictions: Sequence[Prediction], path: Path, *, most: int = _MAX_PICTURES) -> Path:
    """Draw each picture over its label and prediction; where a teacher was asked, disagreements come first."""
    shown = disagreements_first(predictions)[:most]
    columns = max(min(_COLUMNS, len(shown)), 1)
    rows = max(ceil(len(shown) / columns), 1)
    has_teacher = any(prediction.teacher for prediction in shown)
    with drawing():
        figure = Figure(figsize=(1.55 * columns, (2.15 + 0.15 * has_teacher) * rows), layout="constrained")
        cells = figure.subplots(rows, columns, squeeze=False)
        for axes in cells.flat:
            axes.axis("off")
        for axes, prediction in zip(cells.flat, shown, strict=False):
            _draw(axes, prediction)
        return save(figure, path)


def disagreements_first(predictions: Sequence[Prediction]) -> list[Prediction]:
    """Pictures that the teacher takes for something else, then the rest, each in their order."""
    return sorted(predictions, key=lambda each: each.teacher is None or each.teacher.label == each.top[0].label)


def _draw(axes: Axes, prediction: Prediction) -> None:
    axes.imshow(_square(prediction.file).transpose(1, 2, 0), interpolation="nearest")
    guess = prediction.top[0]
    lines = [f"{cut(plain(guess.label), 16)} {guess.probability:.0%}"]
    if prediction.label is not None and prediction.label != guess.label:
        lines.append(f"is {cut(plain(prediction.label), 16)}")
    if prediction.teacher is not None:
        lines.append(f"teacher: {cut(plain(prediction.teacher.label), 16)}")
    color = _UNKNOWN
    if prediction.label is not None:
        color = _RIGHT if prediction.label == guess.label else _WRONG
    axes.text(0.5, -0.04, "\n".join(lines), transform=axes.transAxes, ha="center", va="top", fontsize=8, color=color)


def _square(file: str) -> np.ndarray:
    """The part of a picture that models are shown, its centre square, large enough to recognise: ``(3, S, S)``."""
    content = regular(Path(file)).read_bytes()
    with strict_pillow():
        with Image.open(io.BytesIO(content)) as image:
            side = min(_LARGEST_SIDE, *image.size)
        return decode_image(content, side)
