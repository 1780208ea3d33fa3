"""Batch norm over all devices."""

from __future__ import annotations

from torch import nn

__all__ = ["synchronized"]


def synchronized(module: nn.Module) -> nn.Module:
    """The same network, whose batch norms take their statistics over the images of all devices.

    By timm's converter: torch's own would drop the activations that timm keeps inside its batch norms.
    """
    from timm.layers import convert_sync_batchnorm

    converted: nn.Module = convert_sync_batchnorm(module)
    return converted
