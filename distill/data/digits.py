"""``digits``: scikit-learn's bundled 1,797 handwritten digits of 8x8 pixels, enlarged; nothing to download."""

from __future__ import annotations

import numpy as np
from PIL import Image

from distill.data.images import Decoded, Split
from distill.data.stratify import stratified_fraction
from distill.events import Tell, silent
from distill.recipe.schema import DataSpec

__all__ = ["load_digits"]

_TEST_FRACTION = 0.2


def load_digits(spec: DataSpec, tell: Tell = silent) -> Decoded:
    """The digits at ``spec.side``, gray as RGB; a fixed, stratified fifth of them is the test set."""
    from sklearn.datasets import load_digits as bundled_digits  # a second to import; only this data set needs it

    bunch = bundled_digits()
    labels = bunch.target.astype(np.int64)
    images = _enlarge(bunch.images, spec.side)
    test = stratified_fraction(labels, _TEST_FRACTION, "digits", "test")
    train = np.setdiff1d(np.arange(len(labels)), test)
    return Decoded(
        classes=tuple(str(name) for name in bunch.target_names),
        train=Split(images[train], labels[train]),
        test=Split(images[test], labels[test]),
    )


def _enlarge(gray: np.ndarray, size: int) -> np.ndarray:
    """Bilinear enlargement of 17 gray levels: ``(N, 8, 8)`` 0..16 to ``(N, 3, S, S)`` uint8."""
    pixels = np.rint(gray * (255 / 16)).astype(np.uint8)
    large = np.stack([np.asarray(Image.fromarray(p).resize((size, size), Image.Resampling.BILINEAR)) for p in pixels])
    return np.repeat(large[:, None], 3, axis=1)
