"""What everything that classifies pixels has in common: a trained run, an exported file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

__all__ = ["Classifier", "Wrapped"]


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


@dataclass(frozen=True)
class Wrapped(ABC):
    """A classifier that answers otherwise than the one inside, and is called as that one is."""

    inner: Classifier

    @property
    def place(self) -> str:
        """The classifier's."""
        return self.inner.place

    @property
    def name(self) -> str:
        """The classifier's."""
        return self.inner.name

    @property
    def classes(self) -> tuple[str, ...]:
        """The classifier's."""
        return self.inner.classes

    @property
    def image_size(self) -> int:
        """The classifier's."""
        return self.inner.image_size

    @property
    def runtime(self) -> str:
        """The classifier's."""
        return self.inner.runtime

    @property
    def device(self) -> torch.device:
        """The classifier's."""
        return self.inner.device

    @abstractmethod
    def logits(self, pixels: Tensor) -> Tensor:
        """Logits ``(N, C)`` float32 of pixels ``(N, 3, S, S)`` uint8."""
