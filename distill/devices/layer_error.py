"""One layer, forward and backward, against the same in float64: how far off each tensor is."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from distill.devices.layers import Layer
from distill.text import counted

__all__ = [
    "TOLERANCE",
    "KernelConfig",
    "LayerTest",
    "LayerTestResult",
    "Outcome",
    "Precision",
    "deviations",
    "float64_seconds",
]

Outcome = Literal["right", "wrong", "crashes", "hangs"]
Precision = Literal["fp32", "bf16"]  # what a CPU trains in

#: How far off a tensor may be, as a share of its largest value.
TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "bf16": 2e-2}

_MIN_PASSES, _MAX_PASSES, _REPEAT_S = 2, 12, 0.1
_DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class KernelConfig:
    """What besides the layer decides on a kernel.

    Attributes:
        isa: ``ONEDNN_MAX_CPU_ISA``; None leaves it as the user has it.
        trains: False: the forward pass alone, without gradients.
    """

    channels_last: bool
    threads: int
    precision: Precision = "fp32"
    isa: str | None = None
    trains: bool = True

    def __str__(self) -> str:
        """As in ``channels-last, 2 threads, fp32``."""
        parts = ["channels-last" if self.channels_last else "contiguous"]
        parts += [counted(self.threads, "thread"), self.precision]
        parts += [] if self.isa is None else [f"up to {self.isa}"]
        return ", ".join([*parts, *([] if self.trains else ["forward alone"])])


@dataclass(frozen=True)
class LayerTest:
    """A layer to try, and how.

    Attributes:
        batches: With how many inputs at once, one after another: the batch decides how threads share the work.
    """

    layer: Layer
    batches: tuple[int, ...]
    setting: KernelConfig


@dataclass(frozen=True)
class LayerTestResult:
    """How a trial ended.

    Attributes:
        error: The largest deviation from float64, as a share of the tensor's largest value; None where there was none
            to measure.
        tensor: Where it was: output, inference, grad_input, grad_weight or grad_bias.
        detail: What the process said before it ended.
    """

    outcome: Outcome
    error: float | None = None
    tensor: str | None = None
    detail: str | None = None


def deviations(trial: LayerTest) -> dict[str, float]:
    """How far off each tensor is, at its worst of many passes, as a share of its largest value; inf where not finite.

    The same numbers, rounded to the trial's precision, go through both. Float64 has none of oneDNN's kernels. One pass
    is not enough: whether an overrun spoils anything depends on what lies behind, and on which thread is first.
    """
    torch.set_num_threads(trial.setting.threads)
    worst: dict[str, float] = {}
    for batch in trial.batches:
        exact, _ = _exact(trial.layer, batch, trial.setting.precision)
        given = _as_set(_drawn(trial.layer, batch, trial.setting.precision), trial.setting)
        until = time.monotonic() + _REPEAT_S
        for number in range(_MAX_PASSES):
            for name, value in _pass(trial.layer, given, trains=trial.setting.trains):
                worst[name] = max(worst.get(name, 0.0), _deviation(value, exact[name]))
            if number + 1 >= _MIN_PASSES and time.monotonic() > until:
                break
    return worst


def float64_seconds(trial: LayerTest) -> float:
    """How long the exact passes took, which tells how fast this machine is; they are kept for the trial itself."""
    torch.set_num_threads(trial.setting.threads)
    return sum(_exact(trial.layer, batch, trial.setting.precision)[1] for batch in trial.batches)


@dataclass(frozen=True)
class _Given:
    """What a layer is given: its input and parameters, and its output's gradient."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    grad: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> _Given:
        bias = None if self.bias is None else change(self.bias)
        return _Given(change(self.x), change(self.weight), bias, change(self.grad))


def _drawn(layer: Layer, batch: int, precision: Precision) -> _Given:
    draw = functools.partial(torch.randn, generator=torch.Generator().manual_seed(0))
    x, weight = draw(batch, *layer.input), draw(layer.weight) / math.sqrt(math.prod(layer.weight[1:]))
    bias = draw(layer.weight[0]) if layer.has_bias else None
    output = layer(torch.empty_like(x, device="meta"), torch.empty_like(weight, device="meta"), None)
    return _Given(x, weight, bias, draw(output.shape)).map(lambda each: each.to(_DTYPES[precision]))


def _as_set(given: _Given, setting: KernelConfig) -> _Given:
    if not setting.channels_last:
        return given
    return given.map(lambda each: each.contiguous(memory_format=torch.channels_last) if each.ndim == 4 else each)


@functools.lru_cache(maxsize=6)  # a layer's trials follow one another
def _exact(layer: Layer, batch: int, precision: Precision) -> tuple[dict[str, Tensor], float]:
    started = time.monotonic()
    exact = dict(_pass(layer, _drawn(layer, batch, precision).map(lambda each: each.double())))
    return exact, time.monotonic() - started


def _pass(layer: Layer, given: _Given, *, trains: bool = True) -> Iterator[tuple[str, Tensor]]:
    """Forward as in inference and as in training, and every gradient."""
    with torch.inference_mode():
        yield "inference", layer(given.x, given.weight, given.bias).clone()
    if not trains:
        return
    fresh = given.map(lambda each: each.detach().clone().requires_grad_())
    output = layer(fresh.x, fresh.weight, fresh.bias)
    yield "output", output.detach()
    inputs = {"grad_input": fresh.x, "grad_weight": fresh.weight}
    if fresh.bias is not None:
        inputs["grad_bias"] = fresh.bias
    yield from zip(inputs, torch.autograd.grad(output, list(inputs.values()), given.grad), strict=True)


def _deviation(value: Tensor, exact: Tensor) -> float:
    """The largest difference, as a share of the largest exact value."""
    largest = exact.abs().max().item() or 1.0
    off = (value.double() - exact).abs().max().item() / largest
    return off if math.isfinite(off) else math.inf
