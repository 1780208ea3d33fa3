"""A teacher that is asked now: frozen, in eval mode, normalised its own way, in one fixed batch size."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.data.batches import Batch
from distill.devices import using_threads
from distill.models.fixed_batch import ask_for_all
from distill.models.onnx_teacher import OnnxTeacher
from distill.models.taps import POOLED, Taps
from distill.models.trained import Trained
from distill.objectives import NetworkOutput
from distill.recipe.schema import TrainSpec
from distill.teaching.rounding import FEATURES_DTYPE, check_features, check_logits, largest_of, round_logits
from distill.teaching.runtime import Forward

__all__ = ["LiveTeacher", "WithPooled", "compile_teacher"]


# Compiling ResNet-152's forward pass takes about a minute, and saves some 6 ms of a batch (reckoned, not measured).
_BATCHES_WORTH_COMPILING = 10_000


def compile_teacher(teacher: Trained, train: TrainSpec, *, batches: int) -> None:
    """Compile the teacher's forward pass where the student's is compiled, on a GPU, and it is asked often enough.

    Not on a CPU, where live and stored answers must agree to the last bit.

    Args:
        batches: How many it will be asked about.
    """
    if train.compile is not False and teacher.device.type == "cuda" and batches >= _BATCHES_WORTH_COMPILING:
        teacher.module.compile(dynamic=False)


class LiveTeacher:
    """Asks a teacher about every batch, and rounds its answers as a bank would.

    Args:
        features: Stages whose features it answers besides logits; ``pooled`` is rounded as a bank would, too.
        forward: The teacher as the recipe's runtime asks it; None: torch, which alone has features.
    """

    def __init__(
        self,
        teacher: Trained | OnnxTeacher,
        *,
        logits_dtype: str,
        threads: int | None = None,
        features: tuple[str, ...] = (),
        forward: Forward | None = None,
    ) -> None:
        assert not (features and forward), "another runtime has logits alone"
        self.teacher = teacher
        self._forward = forward or teacher
        self._features = features
        self._taps = (
            Taps(teacher.module, features) if features and isinstance(teacher, Trained) else None
        )  # before anything is compiled
        self._threads = threads
        self._largest: Tensor | None = None  # absolute logit so far, before rounding
        self._pooled: Tensor | None = None  # the same of pooled features
        self._dtype = logits_dtype
        self._size = 0  # of the largest batch so far: smaller ones are padded to it, so that a GPU compiles one shape

    def outputs(self, batch: Batch) -> NetworkOutput:
        """The teacher's answer to a batch: logits ``(B, C)`` in float32, and its features by stage; no gradient."""
        self._size = max(self._size, batch.size)
        with using_threads(self._threads):
            logits, *found = ask_for_all(self._told, batch.images, size=self._size)
        largest = largest_of(logits)
        self._largest = largest if self._largest is None else torch.maximum(self._largest, largest)
        if POOLED in self._features:
            pooled = largest_of(found[self._features.index(POOLED)])
            self._pooled = pooled if self._pooled is None else torch.maximum(self._pooled, pooled)
        named = zip(self._features, found, strict=True)
        if self.teacher.device.type == "cpu":
            self.check_answers()
        return NetworkOutput(round_logits(logits, self._dtype), {name: _as_stored(name, each) for name, each in named})

    def _told(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Logits, then the features."""
        logits = self._forward(pixels)
        return (logits,) if self._taps is None else (logits, *(each.float() for each in self._taps.take()))

    def check_answers(self) -> None:
        """Look whether all answers so far could be learned from. On a GPU this waits for it, so not at every step.

        Raises:
            RunError: One was not finite, or is not in ``teacher.logits_dtype``.
        """
        if self._largest is not None:
            check_logits(self._largest.item(), teacher=self.teacher.place, dtype=self._dtype)
        if self._pooled is not None:
            check_features(self._pooled.item(), teacher=self.teacher.place)


class WithPooled:
    """A teacher whose pooled features stand behind its logits, one row an image, as a bank stores them."""

    def __init__(self, teacher: Trained) -> None:
        self._teacher = teacher
        self._taps = Taps(teacher.module, (POOLED,))

    def __call__(self, pixels: Tensor) -> Tensor:
        """``(B, C + D)`` float32 of pixels ``(B, 3, S, S)``."""
        logits = self._teacher(pixels)
        (pooled,) = self._taps.take()
        return torch.cat([logits, pooled.float()], dim=1)


def _as_stored(name: str, features: Tensor) -> Tensor:
    return round_logits(features, FEATURES_DTYPE) if name == POOLED else features
