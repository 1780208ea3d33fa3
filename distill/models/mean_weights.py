"""The mean of the weights of networks that are built alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["mean_weights"]


def mean_weights(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each tensor of several state dicts, worked out in float64 on the CPU.

    Batch norm's running statistics are averaged too; whole numbers, as its counters are, are the first one's.

    Raises:
        ValueError: There are none, or their names or shapes differ.
    """
    shapes = [{name: each.shape for name, each in state.items()} for state in states]
    if not shapes or any(each != shapes[0] for each in shapes[1:]):
        raise ValueError("networks that are not built alike have no mean")
    return {
        name: torch.stack([state[name].to("cpu", torch.float64) for state in states]).mean(0).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor.cpu().clone()
        for name, tensor in states[0].items()
    }
