"""First filters that are found from the training images, in the networks that have such."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from distill.data.images import Split
from distill.models.normalize import Normalize
from students.fast import FirstFilters

__all__ = ["fit_first_filters"]

_IMAGES = 5_000  # patches by the million: more images change the filters by less than a step of training does


def fit_first_filters(module: nn.Module, train: Split, normalize: Normalize) -> bool:
    """Fit a network's first filters to images of the training split, without augmentation; whether it has such.

    The images are spread evenly over the split, so that neither chance nor the order of classes has a say.
    """
    found = [each for each in module.modules() if isinstance(each, FirstFilters)]
    if not found:
        return False
    positions = np.unique(np.linspace(0, len(train) - 1, _IMAGES).round().astype(np.int64))
    pixels = torch.from_numpy(np.ascontiguousarray(train.take(positions)))
    images = torch.cat([normalize(part) for part in pixels.split(500)])
    for filters in found:
        filters.fit(images)
    return True
