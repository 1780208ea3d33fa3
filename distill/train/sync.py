"""Batch norm over all devices."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["synchronized"]


def synchronized(module: nn.Module) -> nn.Module:
    """The same network, whose batch norms take their statistics over the images of all devices.

    By timm's converter: torch's own would drop the activations that timm keeps inside its batch norms.
    """
    from timm.layers import convert_sync_batchnorm

    fixed = _make_learnable(module)
    converted: nn.Module = convert_sync_batchnorm(module)
    for name in fixed:  # again what they were
        norm = converted.get_submodule(name)
        scale = norm.get_parameter("weight").detach()
        del norm.weight
        norm.register_buffer("weight", scale)
    return converted


def _make_learnable(module: nn.Module) -> list[str]:
    """Turn scales that are buffers into parameters, as the converter expects them; the names of their batch norms."""
    found = []
    for name, norm in module.named_modules():
        if not isinstance(norm, nn.modules.batchnorm._BatchNorm):
            continue
        if isinstance(scale := norm._buffers.pop("weight", None), Tensor):
            norm.weight = nn.Parameter(scale, requires_grad=False)
            found.append(name)
    return found
