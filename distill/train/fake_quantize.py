"""Quantisation-aware training: layers that round in training as an int8 file will (arXiv:1712.05877).

Weights are rounded for each output channel, symmetrically: batch norm scales whole channels, so that folding it later
changes nothing of the rounding. What enters a layer is rounded to 8 bits over the range of its own batch. Gradients
pass as if nothing were rounded. In eval mode a network is what it was: that is what is validated, saved and exported.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["fake_quantize", "rounded_inputs", "rounded_weights"]

_LEVELS = 255  # of 8 bits, for what enters a layer
_STEPS = {8: 127, 7: 64}  # steps of weights to either side of zero
_MIN_RANGE = 1e-12  # of a range: a channel of zeros keeps its zeros


def fake_quantize(module: nn.Module, *, bits: int) -> int:
    """Let every 2-d convolution and linear layer of a network round in training, in place; returns how many do.

    Parameters, their names and the layers' own code stay what they are.

    Args:
        bits: Of the weights: 8, or 7, which leaves room for the kernels of every processor.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    for layer in layers:
        kind: Any = type(layer)
        layer.__class__ = _rounding(kind, bits)
    return len(layers)


def rounded_weights(weight: Tensor, bits: int) -> Tensor:
    """``(out, ...)`` rounded for each output channel to -127 to 127 steps, 7 bits to -64 to 64: as the runtime."""
    most = _STEPS[bits]
    scale = weight.detach().flatten(1).abs().amax(1).float().clamp(min=_MIN_RANGE) / most
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -most, most)


def rounded_inputs(inputs: Tensor) -> Tensor:
    """Any shape, rounded to 256 values between the least and the largest of them, zero among these."""
    low, high = torch.aminmax(inputs.detach().float())
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    scale = (high - low).clamp(min=_MIN_RANGE) / _LEVELS
    zero = (-low / scale).round().to(torch.int32)
    rounded = torch.fake_quantize_per_tensor_affine(inputs.float(), scale, zero, 0, _LEVELS)
    return rounded.to(inputs.dtype)


@cache
def _rounding(kind: Any, bits: int) -> Any:
    """The same layer, which rounds while it is in training; named as it was."""

    def weight(self: nn.Module) -> Tensor:
        own = self._parameters["weight"]
        assert own is not None
        return rounded_weights(own, bits) if self.training else own

    def forward(self: nn.Module, inputs: Tensor, *more: Any) -> Tensor:
        result: Tensor = kind.forward(self, rounded_inputs(inputs) if self.training else inputs, *more)
        return result

    return type(kind.__name__, (kind,), {"weight": property(weight), "forward": forward, "__module__": kind.__module__})
