"""A network as it ships: bytes of an image in, logits out; nothing about its normalisation is left to the user."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distill.models.normalize import Normalize

__all__ = ["Deployed"]


class Deployed(nn.Module):
    """Scaling, normalisation, the resize to the network's input, and the network, as one graph.

    Args:
        network: In eval mode, on the CPU.
        image_size: Side of the images it will be given, in pixels.
        temperature: What the logits are divided by; None leaves them.

    Shapes:
        forward: ``(N, 3, image_size, image_size)`` uint8 to ``(N, C)`` float32.
    """

    def __init__(
        self, network: nn.Module, normalize: Normalize, *, image_size: int, temperature: float | None = None
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.network = network
        self.image_size, self.input_size = image_size, normalize.input_size
        mean, std = (torch.tensor(each, dtype=torch.float64) for each in (normalize.mean, normalize.std))
        self.factor: Tensor
        self.offset: Tensor
        # buffers, and not Normalize's own cached constants: an exporter cannot trace a cache
        self.register_buffer("factor", (1.0 / (255.0 * std)).float().view(1, 3, 1, 1))
        self.register_buffer("offset", (-mean / std).float().view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images."""
        x = images.to(torch.float32)
        if self.image_size > self.input_size:  # where it shrinks, fewer pixels are left to scale
            x = self._resize(x)
        x = x * self.factor + self.offset
        if self.image_size < self.input_size:
            x = self._resize(x)
        logits = self.network(x)
        return logits if self.temperature is None else logits / self.temperature

    def _resize(self, x: Tensor) -> Tensor:
        size, shrinks = (self.input_size, self.input_size), self.image_size > self.input_size
        return F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=shrinks)
