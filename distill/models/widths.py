"""Layers of other widths than their network's builder gives them: what pruning leaves, as a recipe states it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from distill.recipe.model_specs import LayerWidth

__all__ = ["set_widths", "width_of", "widths_between"]


def set_widths(module: nn.Module, widths: Iterable[LayerWidth]) -> None:
    """Give layers their stated widths; what is new of them is initialised as their class does it.

    Raises:
        ValueError: No such layer, or one of a kind that has no width of its own.
    """
    layers = dict(module.named_modules())
    for name, inputs, outputs, groups in widths:
        layer = layers.get(name)
        if layer is None or not _has_width(layer):
            what = "there is no such layer" if layer is None else f"a {type(layer).__name__} has no width"
            raise ValueError(f"widths: {name}: {what}")
        _set_width(layer, inputs, outputs, groups)


def width_of(layer: nn.Module) -> tuple[int, int, int]:
    """Input channels, output channels and groups of a convolution, a linear layer or a batch norm."""
    if isinstance(layer, nn.Conv2d):
        return layer.in_channels, layer.out_channels, layer.groups
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features, 1
    assert isinstance(layer, _BatchNorm)
    return layer.num_features, layer.num_features, 1


def widths_between(before: nn.Module, after: nn.Module) -> tuple[LayerWidth, ...]:
    """What makes the one network the other, in the order of its layers.

    Raises:
        ValueError: They differ in more than widths; the message names the layer.
    """
    old = dict(before.named_modules())
    widths: list[LayerWidth] = []
    for name, layer in after.named_modules():
        own = {key: tensor.shape for key, tensor in _own_tensors(layer)}
        if own == {key: tensor.shape for key, tensor in _own_tensors(old[name])}:
            continue
        if not _has_width(layer):
            raise ValueError(f"{name}: a {type(layer).__name__} was cut too, and has no width to state")
        widths.append((name, *width_of(layer)))
    return tuple(widths)


def _has_width(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d | nn.Linear | _BatchNorm)


def _own_tensors(layer: nn.Module) -> Iterable[tuple[str, torch.Tensor]]:
    yield from layer.named_parameters(recurse=False)
    yield from layer.named_buffers(recurse=False)


def _set_width(layer: nn.Module, inputs: int, outputs: int, groups: int) -> None:
    if isinstance(layer, nn.Conv2d):
        layer.in_channels, layer.out_channels, layer.groups = inputs, outputs, groups
        shapes = {"weight": (outputs, inputs // groups, *layer.kernel_size), "bias": (outputs,)}
    elif isinstance(layer, nn.Linear):
        layer.in_features, layer.out_features = inputs, outputs
        shapes = {"weight": (outputs, inputs), "bias": (outputs,)}
    else:
        assert isinstance(layer, _BatchNorm)
        layer.num_features = outputs
        shapes = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (outputs,))
    for name, tensor in [*_own_tensors(layer)]:
        if name in shapes:
            new = torch.empty(shapes[name], dtype=tensor.dtype, device=tensor.device)
            kind = nn.Parameter(new, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else new
            setattr(layer, name, kind)
    layer.reset_parameters()
