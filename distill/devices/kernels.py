"""Kernels that are known to be wrong on a CPU, and how a network that would reach one is kept from it.

What is wrong is listed in :data:`WRONG_KERNELS`, one entry a kernel with its report upstream: when that is mended, the
entry goes. Every entry so far is wrong for images in channels-last alone, and in the backward pass alone: a network
with such a layer trains on contiguous images; asking and measuring it is right in either format.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["WRONG_KERNELS", "UnsafeLayer", "WrongKernel", "compile_module", "force_contiguous_inputs", "unsafe_layers"]

_BLOCK = 16  # input channels that a kernel works on at once with AVX-512; AVX2: 8, SSE4.1: 4
_RECOMPILES = 64  # a sweep compiles many networks of one class; at 8, torch's default, the rest would run uncompiled


@dataclass(frozen=True)
class WrongKernel:
    """A kernel that is wrong where images lie in channels-last.

    Attributes:
        what: What it does.
        report: Where it is reported.
        is_reached_by: Whether a layer would run it, on some CPU.
    """

    what: str
    report: str
    is_reached_by: Callable[[nn.Module], bool]


@dataclass(frozen=True)
class UnsafeLayer:
    """A layer of a network, and the wrong kernel that it would reach."""

    name: str
    layer: str
    kernel: WrongKernel

    def __str__(self) -> str:
        return f"{self.name} ({self.layer})"


def _is_narrow_strided_pointwise(layer: nn.Module) -> bool:
    return (
        isinstance(layer, nn.Conv2d)
        and set(layer.kernel_size) == {1}
        and max(layer.stride) > 1
        and layer.in_channels // layer.groups < _BLOCK
    )


#: All that is known. Each entry was seen on torch 2.11 to 2.15; ``ONEDNN_MAX_CPU_ISA=AVX2`` shows it on any x86 CPU.
WRONG_KERNELS = (
    WrongKernel(
        # The weights' gradient of a strided 1x1 convolution copies each image into scratch memory that has room for
        # the input channels, and writes whole blocks of them: gradients up to 615 times off, a damaged heap, or two
        # threads that spin for ever. Seen with 1 to 7 input channels and AVX2, with 2 to 15 and AVX-512 on two threads
        # (in bf16 too), and with none at or above a block (docs/results/kernels.json).
        what="its weights' gradient writes past its memory",
        report="https://github.com/uxlfoundation/oneDNN/issues/6035",
        is_reached_by=_is_narrow_strided_pointwise,
    ),
)


def unsafe_layers(module: nn.Module, device: torch.device) -> tuple[UnsafeLayer, ...]:
    """The layers of a network that reach a wrong kernel where it trains on ``device`` in channels-last.

    Works on the meta device too. Off the CPU there is none.
    """
    if device.type != "cpu":
        return ()
    return tuple(
        UnsafeLayer(name, _describe(layer), kernel)
        for name, layer in module.named_modules()
        for kernel in WRONG_KERNELS
        if kernel.is_reached_by(layer)
    )


def _describe(layer: nn.Module) -> str:
    if not isinstance(layer, nn.Conv2d):
        return type(layer).__name__
    size = "x".join(str(n) for n in layer.kernel_size)
    stride = "x".join(str(n) for n in dict.fromkeys(layer.stride))
    groups = "" if layer.groups == 1 else f", {layer.groups} groups"
    return f"{size}, stride {stride}, {layer.in_channels} input channels{groups}"


def force_contiguous_inputs(module: nn.Module, device: torch.device) -> tuple[UnsafeLayer, ...]:
    """Give each unsafe layer contiguous images, whatever the layers before it hand on; returns those layers.

    A network may change the format on its way (a norm over the last dimension does), so leaving its input and its
    weights contiguous is not enough. Where the images are contiguous already, nothing is copied.
    """
    unsafe_ones = unsafe_layers(module, device)
    for unsafe in unsafe_ones:
        layer = module.get_submodule(unsafe.name)
        layer.to(memory_format=torch.contiguous_format)
        layer.register_forward_pre_hook(_contiguous)
    return unsafe_ones


def _contiguous(_layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(_plain(each) if isinstance(each, Tensor) else each for each in inputs)


def _plain(images: Tensor) -> Tensor:
    """Contiguous, by its strides too: an image of one channel, or of one pixel, is both formats at once to torch.

    ``contiguous()`` then keeps channels-last strides, and those are what the choice of a kernel goes by.
    """
    return images.contiguous().flatten().view(images.shape)


def compile_module(module: nn.Module, device: torch.device, *, mode: str) -> None:
    """``torch.compile`` the network in place, without leading an unsafe layer to its wrong kernel.

    On a CPU inductor lays every convolution's images out as channels-last, whatever the network says; for a network
    with unsafe layers that is switched off.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _RECOMPILES)
    if not unsafe_layers(module, device):
        module.compile(mode=mode, dynamic=False)
        return
    # torch takes a mode or options, not both
    options = torch._inductor.list_mode_options(mode) | {"layout_optimization": False}
    module.compile(options=options, dynamic=False)
