"""How right weights are that no training here gave: judged on validation images, or on training images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from distill.data.images import Split, evenly_spaced_positions
from distill.data.splits import Splits
from distill.devices import fast_kernels
from distill.errors import DataError
from distill.evaluation.correct import correct
from distill.evaluation.metrics import predict_logits
from distill.models.trained import Trained
from distill.text import count

__all__ = ["Judge"]

_BATCH = 256
_MOST = 2_000  # of training images: enough to see a network that is worth nothing


@dataclass(frozen=True)
class Judge:
    """The images: of ``val``, or of ``train`` where there are none to validate on."""

    part: Split
    chosen: np.ndarray
    split: str

    @classmethod
    def of(cls, splits: Splits) -> Judge:
        """All validation images, or 2,000 training images, spread over all of them."""
        if splits.val is not None:
            return cls(splits.val, np.arange(len(splits.val)), "val")
        part = splits.labelled
        return cls(part, evenly_spaced_positions(len(part), _MOST), "train")

    @property
    def what(self) -> str:
        """How many of which, in words."""
        return f"{count(len(self.chosen))} {'validation' if self.split == 'val' else 'training'} images"

    def right(self, network: Trained) -> np.ndarray:
        """Which of the images a network answers right, ``(N,)`` bool.

        Raises:
            DataError: Its answers are not finite.
        """
        parts = np.array_split(self.chosen, math.ceil(len(self.chosen) / _BATCH))
        with fast_kernels(network.device):
            logits = predict_logits(network.logits, (torch.from_numpy(self.part.take(each)) for each in parts))
        if not bool(logits.isfinite().all()):
            raise DataError(
                f"{network.place}: its answers are not finite", hint="are its weights, and batch norm's statistics?"
            )
        return correct(logits.numpy(), np.asarray(self.part.labels)[self.chosen])
