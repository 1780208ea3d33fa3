"""Averages over classes, whatever their sizes, from counts by class; no torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distill.results.metrics import PerClass
from distill.text import count, plain

__all__ = ["FEW_IMAGES", "balanced_accuracy", "few_images_note", "macro_f1"]

FEW_IMAGES = 20  # of so many, Wilson's interval of a class's accuracy is up to 40 points wide; of fewer it is wider


def balanced_accuracy(right: np.ndarray, images: np.ndarray) -> float:
    """Mean recall of the classes that have images.

    Shapes:
        right, images: ``(C,)``, how many images of each class were recognised, and how many there are.
    """
    present = images > 0
    return float((right[present] / images[present]).mean())


def macro_f1(right: np.ndarray, images: np.ndarray, guessed: np.ndarray) -> float:
    """Mean F1 of the classes that occur among labels or predictions.

    Shapes:
        right, images: As above; guessed: ``(C,)``, how many images were taken for each class.
    """
    occurs = images + guessed > 0
    return float((2 * right[occurs] / (images + guessed)[occurs]).mean())


def few_images_note(classes: Sequence[PerClass], *, what: str = "test images") -> str | None:
    """What to say of classes that have too few images to be judged by; None where every class has enough.

    A class without images is named too: nothing was found out about it.
    """
    few = sorted((each for each in classes if each.n < FEW_IMAGES), key=lambda each: each.n)
    if not few:
        return None
    named = ", ".join(f"{plain(each.label)} {count(each.n)}" for each in few[:5])
    named += ", ..." if len(few) > 5 else ""
    return (
        f"{len(few)} of {len(classes)} classes have fewer than {FEW_IMAGES} {what} ({named}): "
        "too few to judge them by, and balanced accuracy and macro F1 count each as much as a large one"
    )
