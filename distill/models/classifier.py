"""What everything that classifies pixels has in common: a trained run, an exported file."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

__all__ = ["Classifier"]


@runtime_checkable
class Classifier(Protocol):
    """Pixels in, logits out; whoever asks need not know what computes them.

    Attributes:
        place: Where it lies: the run's folder, or the file.
        name: What tables call it.
        classes: Their names, in the order of the logits.
        image_size: Side of the pixels it takes.
        runtime: What computes it and in which arithmetic: ``torch fp32``, ``onnxruntime int8``.
        device: Where it takes its pixels best.
    """

    @property
    def place(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def image_size(self) -> int: ...
    @property
    def runtime(self) -> str: ...
    @property
    def device(self) -> torch.device: ...

    def logits(self, pixels: Tensor) -> Tensor:
        """The same answers for an image whatever its neighbours.

        Shapes:
            pixels: ``(N, 3, image_size, image_size)`` uint8.
            returns: ``(N, C)`` float32, on the CPU or where the network is.
        """
        ...
