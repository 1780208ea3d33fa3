"""Each tensor of a layer is compared with float64, and what is off is seen."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from distill.devices import layer_error, layers
from distill.devices.layer_error import TOLERANCE, KernelConfig, LayerTest, deviations
from distill.devices.layers import Layer

POINTWISE = Layer("conv2d", (4, 6, 6), (8, 4, 1, 1), True, (2, 2), (0, 0), (1, 1))
TENSORS = {"inference", "output", "grad_input", "grad_weight", "grad_bias"}


@pytest.fixture(autouse=True)
def _fresh():
    threads = torch.get_num_threads()
    layer_error._exact.cache_clear()
    yield
    layer_error._exact.cache_clear()
    torch.set_num_threads(threads)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "layer",
    [
        Layer("conv2d", (16, 8, 8), (8, 4, 3, 3), True, (2, 2), (1, 1), (1, 1), 4),
        Layer("conv1d", (4, 9), (6, 4, 3), True, (2,), (0,), (1,)),
        Layer("linear", (3, 5), (7, 5), True),
    ],
    ids=str,
)
def test_a_right_layer_is_within_its_tolerance(layer: Layer, precision: str, channels_last: bool) -> None:
    found = deviations(LayerTest(layer, (5, 2), KernelConfig(channels_last, 1, precision)))
    assert found.keys() == TENSORS
    assert 0 < max(found.values()) < TOLERANCE[precision]


def test_without_a_backward_pass_one_tensor_is_left() -> None:
    assert deviations(LayerTest(POINTWISE, (2,), KernelConfig(True, 1, trains=False))).keys() == {"inference"}


def test_what_it_is_compared_with_is_the_convolution_of_the_textbook() -> None:
    given = layer_error._drawn(POINTWISE, 3, "fp32")
    x, weight, bias, grad = (tensor.double().numpy() for tensor in (given.x, given.weight, given.bias, given.grad))
    kept, matrix = x[:, :, ::2, ::2], weight[:, :, 0, 0]
    output = np.einsum("nihw,oi->nohw", kept, matrix) + bias[:, None, None]
    grad_input = np.zeros_like(x)
    grad_input[:, :, ::2, ::2] = np.einsum("nohw,oi->nihw", grad, matrix)
    wanted = {
        "inference": output,
        "output": output,
        "grad_input": grad_input,
        "grad_weight": np.einsum("nohw,nihw->oi", grad, kept)[:, :, None, None],
        "grad_bias": grad.sum((0, 2, 3)),
    }
    exact, _ = layer_error._exact(POINTWISE, 3, "fp32")
    assert exact.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(exact[name].numpy(), value, rtol=1e-12, atol=1e-12)


class _Off(torch.autograd.Function):
    """Right in float64; in float32 one of its tensors is off by a thousandth."""

    tensor = ""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, stride=2) * _Off.factor("output", x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, ...]:
        x, weight = ctx.saved_tensors
        sizes = ([8], (2, 2), (0, 0), (1, 1), False, (0, 0), 1, (True, True, True))
        found = torch.ops.aten.convolution_backward(grad, x, weight, *sizes)
        names = ("grad_input", "grad_weight", "grad_bias")
        return tuple(each * _Off.factor(name, x) for name, each in zip(names, found, strict=True))

    @staticmethod
    def factor(name: str, x: Tensor) -> float:
        return 1.001 if name == _Off.tensor and x.dtype == torch.float32 else 1.0


@pytest.mark.parametrize("tensor", ["output", "grad_input", "grad_weight", "grad_bias"])
def test_a_tensor_that_is_off_is_seen(tensor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(layers._FUNCTIONS, "conv2d", lambda x, weight, bias, *_: _call(x, weight, bias))
    monkeypatch.setattr(_Off, "tensor", tensor)
    found = deviations(LayerTest(POINTWISE, (5,), KernelConfig(False, 1)))
    off = {name for name, error in found.items() if error > TOLERANCE["fp32"]}
    assert off == ({"output", "inference"} if tensor == "output" else {tensor})
    assert found[tensor] == pytest.approx(1e-3, rel=0.01)


def _call(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.conv2d(x, weight, bias, stride=2) if bias is None else _Off.apply(x, weight, bias)


def test_what_is_not_finite_is_off_without_bound() -> None:
    exact = torch.ones(2, dtype=torch.float64)
    for value in (math.nan, math.inf):
        assert layer_error._deviation(torch.tensor([1.0, value]), exact) == math.inf
    assert layer_error._deviation(torch.tensor([1.0, 0.5]), 2 * exact) == 0.75
    assert layer_error._deviation(torch.tensor([0.0, 0.5]), 0 * exact) == 0.5
