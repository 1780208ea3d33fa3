"""What an image of each class counts in the cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from distill.errors import RecipeError
from distill.recipe.objectives import ClassWeights
from distill.text import several

__all__ = ["resolve_class_weights"]


def resolve_class_weights(spec: ClassWeights, labels: np.ndarray, classes: Sequence[str]) -> Tensor | None:
    """The weights of ``objective.class_weights``; None where every image counts alike.

    ``balanced`` gives a class of n images ``N / (K * n)``, with K classes that have some: each class then counts alike
    over an epoch, and the mean over images is 1.

    Shapes:
        labels: ``(N,)`` from 0 to C - 1, of the training images.
        returns: ``(C,)`` float32.

    Raises:
        RecipeError: There are as many weights as there are not classes.
    """
    if spec is None:
        return None
    if spec == "balanced":
        counts = np.bincount(labels, minlength=len(classes)).astype(np.float64)
        present = counts > 0
        weights = np.where(present, len(labels) / (present.sum() * np.maximum(counts, 1)), 0.0)
        return torch.from_numpy(weights.astype(np.float32))
    if len(spec) != len(classes):
        raise RecipeError(
            f"objective.class_weights has {len(spec)} numbers, and the data has {len(classes)} classes",
            hint=f"one for each, in this order: {several(list(classes), 12)}; or balanced",
        )
    return torch.tensor(spec, dtype=torch.float32)
