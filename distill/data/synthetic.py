"""``synthetic``: ten coloured patterns under noise, made on the spot; for tests and first steps."""

from __future__ import annotations

import numpy as np

from distill.data.images import Decoded, Split
from distill.data.streams import integers, raw_bits
from distill.events import Tell, silent
from distill.recipe.schema import DataSpec

__all__ = ["SYNTHETIC_CLASSES", "load_synthetic"]

SYNTHETIC_CLASSES = 10
_TRAIN, _TEST = 512, 256
_GRID = 4  # a class is a grid of 4 x 4 colours
_NOISE = 96  # width of the uniform noise, in gray levels


def load_synthetic(spec: DataSpec, tell: Tell = silent) -> Decoded:
    """512 training and 256 test images of ten classes, the same on every machine."""
    return Decoded(
        classes=tuple(f"pattern_{label}" for label in range(SYNTHETIC_CLASSES)),
        train=_make("train", _TRAIN, spec.side),
        test=_make("test", _TEST, spec.side),
    )


def _make(split: str, n: int, size: int) -> Split:
    labels = np.arange(n, dtype=np.int64) % SYNTHETIC_CLASSES
    patterns = np.stack([_pattern(label, size) for label in range(SYNTHETIC_CLASSES)])
    images = np.empty((n, 3, size, size), dtype=np.uint8)
    for i, label in enumerate(labels):
        images[i] = np.clip(patterns[label] + _noise(split, i, size), 0, 255)
    return Split(images, labels)


def _pattern(label: int, size: int) -> np.ndarray:
    """Colours 64..191 in a grid, enlarged without smoothing: int16 ``(3, S, S)``."""
    colours = 64 + integers(3 * _GRID**2, 128, "synthetic", "pattern", label).reshape(3, _GRID, _GRID)
    cell = np.arange(size) * _GRID // size
    return colours[:, cell[:, None], cell].astype(np.int16)


def _noise(split: str, index: int, size: int) -> np.ndarray:
    """Uniform noise around zero, drawn for each image alone: int16 ``(3, S, S)``."""
    n = 3 * size * size
    raw = raw_bits(-(-n // 8), "synthetic", "noise", split, index).astype("<u8").view(np.uint8)[:n]
    return (raw.astype(np.int16) * _NOISE // 256 - _NOISE // 2).reshape(3, size, size)
