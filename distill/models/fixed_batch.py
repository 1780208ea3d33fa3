"""Ask a network in one fixed batch size, so that an image's answer does not depend on who asks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["CPU_BATCH", "ask", "ask_for_all"]

# Below some 48 images a CPU's matrix products take another path, and an image's logits change in the last bits with
# the size of its batch. One fixed size, padded, keeps the answers the same for whoever asks.
CPU_BATCH = 64


def ask(network: Callable[[Tensor], Tensor], images: Tensor, *, size: int | None = None) -> Tensor:
    """A network's logits, float32 ``(B, C)``, for pixels ``(B, 3, S, S)`` in 0..255.

    Args:
        size: How many are asked at a time on a GPU, the last batch padded; None: all at once. On a CPU always 64.
    """
    return ask_for_all(lambda piece: (network(piece),), images, size=size)[0]


def ask_for_all(
    network: Callable[[Tensor], tuple[Tensor, ...]], images: Tensor, *, size: int | None = None
) -> tuple[Tensor, ...]:
    """The same of a network that answers several tensors, each with the images as its first dimension."""
    size = CPU_BATCH if images.device.type == "cpu" else size or len(images)
    pieces = [_ask_padded(network, piece, size) for piece in images.split(size)]
    return tuple(torch.cat(each) for each in zip(*pieces, strict=True))


def _ask_padded(network: Callable[[Tensor], tuple[Tensor, ...]], images: Tensor, size: int) -> tuple[Tensor, ...]:
    count = len(images)
    if count < size:
        padding = images.new_zeros((size - count, *images.shape[1:]))
        images = torch.cat([images, padding])
    return tuple(answer[:count] for answer in network(images))
