"""The layers of a network that a CPU's matrix kernels work on, as shapes: each distinct one, once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

__all__ = ["Layer", "Pass", "layers_of"]

Kind = Literal["conv1d", "conv2d", "conv3d", "linear"]

_WATCHED: dict[Callable[..., Tensor], Kind] = {
    F.conv1d: "conv1d", F.conv2d: "conv2d", F.conv3d: "conv3d", F.linear: "linear",
}  # fmt: skip
_FUNCTIONS: dict[Kind, Callable[..., Tensor]] = {kind: function for function, kind in _WATCHED.items()}


@dataclass(frozen=True)
class Layer:
    """A convolution or a linear layer: all that decides on its kernel but the batch, the settings and the machine.

    Attributes:
        input: The shape of its input without the first dimension, ``(C, H, W)`` for images.
        weight: ``(O, C / groups, ...)``, or ``(O, I)``.
        has_bias: Whether it adds a bias.
        stride, padding, dilation: By spatial dimension; padding may be torch's ``same`` or ``valid``. Empty for linear.
        groups: 1 for linear.
    """

    kind: Kind
    input: tuple[int, ...]
    weight: tuple[int, ...]
    has_bias: bool
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] | str = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """What the layer makes of ``(B, *input)``."""
        if self.kind == "linear":
            return F.linear(x, weight, bias)
        return _FUNCTIONS[self.kind](x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the forward pass of one input."""
        with torch.device("meta"):
            output = self(torch.empty(1, *self.input), torch.empty(self.weight), None)
        return output.numel() * math.prod(self.weight[1:])

    def __str__(self) -> str:
        """As in ``conv2d 1x1, stride 2, 4 -> 8, 16x16``; padding only where it does not keep the middle."""
        bias = ["bias"] if self.has_bias else []
        if self.kind == "linear":
            rows = [f"{_by(self.input[:-1])} rows"] if self.input[1:] else []
            return ", ".join([f"linear {self.weight[1]} -> {self.weight[0]}", *rows, *bias])
        parts = [f"{self.kind} {_by(self.weight[2:])}"]
        parts += [f"stride {_brief(self.stride)}"] if set(self.stride) != {1} else []
        parts += [f"dilation {_brief(self.dilation)}"] if set(self.dilation) != {1} else []
        parts += [f"{self.groups} groups"] if self.groups != 1 else []
        keeps_the_middle = self.padding == tuple(size // 2 for size in self.weight[2:])
        parts += [] if keeps_the_middle else [f"padding {_brief(self.padding)}"]
        return ", ".join([*parts, f"{self.input[0]} -> {self.weight[0]}", _by(self.input[1:]), *bias])


def _by(sizes: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in sizes)


def _brief(sizes: tuple[int, ...] | str) -> str:
    if isinstance(sizes, str):
        return sizes
    return _by(sizes[:1] if len(set(sizes)) == 1 else sizes)


@dataclass(frozen=True)
class Pass:
    """A layer that an image passes.

    Attributes:
        names: The modules that hold it, as the network names them, in the order in which they run.
        per_image: How many inputs of it one image makes: more than 1 where windows or patches fill the first dimension.
        calls: How often it runs: more often than it has names where a module is called again.
    """

    layer: Layer
    names: tuple[str, ...]
    per_image: int = 1
    calls: int = 1


def layers_of(network: nn.Module, input_size: int, *, in_channels: int = 3) -> tuple[Pass, ...]:
    """Every distinct layer on an image's way through a network on the meta device, in order; nothing is computed.

    Functional calls are found too, under the name of the module that makes them.
    """
    paths: dict[tuple[Layer, int], list[str]] = {}  # of every call
    was_training = network.training
    network.eval()  # batch norm refuses to learn from one value a channel
    try:
        with (
            _named(network) as path,
            _Watch(lambda layer, count: paths.setdefault((layer, count), []).append(path[-1])),
            torch.no_grad(),
        ):
            network(torch.empty(1, in_channels, input_size, input_size, device="meta"))
    finally:
        network.train(was_training)
    return tuple(Pass(layer, tuple(dict.fromkeys(names)), count, len(names)) for (layer, count), names in paths.items())


@contextmanager
def _named(network: nn.Module) -> Iterator[list[str]]:
    """The names of the modules that are running, innermost last."""
    path = [""]
    hooks = []
    for name, module in network.named_modules():
        hooks.append(module.register_forward_pre_hook(lambda *_, name=name: path.append(name)))
        hooks.append(module.register_forward_hook(lambda *_: path.pop() and None))
    try:
        yield path
    finally:
        for hook in hooks:
            hook.remove()


class _Watch(TorchFunctionMode):
    """Tells every convolution and linear layer that is called."""

    def __init__(self, tell: Callable[[Layer, int], None]) -> None:
        super().__init__()
        self._tell = tell

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _WATCHED:
            self._see(_WATCHED[func], *args, **kwargs)
        return func(*args, **kwargs)

    def _see(  # noqa: PLR0917
        self, kind: Kind, input: Tensor, weight: Tensor, bias: Tensor | None = None,
        stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    ) -> None:  # fmt: skip
        n = weight.ndim - 2  # spatial dimensions
        batched = input if input.ndim > max(n + 1, 1) else input[None]
        self._tell(
            Layer(
                kind, tuple(batched.shape[1:]), tuple(weight.shape), bias is not None,
                stride=_each(stride, n), padding=padding if isinstance(padding, str) else _each(padding, n),
                dilation=_each(dilation, n), groups=groups,
            ),
            batched.shape[0],
        )  # fmt: skip


def _each(value: int | tuple[int, ...], n: int) -> tuple[int, ...]:
    """One value for each spatial dimension."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * n if len(values) == 1 else values
