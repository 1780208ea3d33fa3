"""Ask a network in one fixed batch size, so that an image's answer does not depend on who asks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["CPU_ASK_BATCH", "ask"]

# Below some 48 images a CPU's matrix products take another path, and an image's logits change in the last bits with
# the size of its batch. One fixed size, padded, keeps the answers the same for whoever asks.
CPU_ASK_BATCH = 64


def ask(network: Callable[[Tensor], Tensor], images: Tensor, *, size: int | None = None) -> Tensor:
    """A network's logits, float32 ``(B, C)``, for pixels ``(B, 3, S, S)`` in 0..255.

    Args:
        size: How many are asked at a time on a GPU, the last batch padded; None: all at once. On a CPU always 64.
    """
    size = CPU_ASK_BATCH if images.device.type == "cpu" else size or len(images)
    return torch.cat([_ask_padded(network, piece, size) for piece in images.split(size)])


def _ask_padded(network: Callable[[Tensor], Tensor], images: Tensor, size: int) -> Tensor:
    count = len(images)
    if count < size:
        padding = images.new_zeros((size - count, *images.shape[1:]))
        images = torch.cat([images, padding])
    return network(images)[:count]
