"""How a network's weights lie in memory."""

from __future__ import annotations

import itertools
from typing import TypeVar

import torch
from torch import nn

__all__ = ["channels_last"]

Network = TypeVar("Network", bound=nn.Module)


def channels_last(module: Network) -> Network:
    """The same module, with the weights of its 2-d convolutions in channels-last.

    ``Module.to(memory_format=...)`` refuses networks that hold a 3-d convolution too, as timm's lambda networks do.
    """
    for tensor in itertools.chain(module.parameters(), module.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.to(memory_format=torch.channels_last)  # the strides of 1x1 kernels too
    return module
