"""Layers that round in training: against NumPy, ONNX Runtime's own rounding, and torch's plain layers."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
import torch
from onnxruntime.quantization.quant_utils import compute_scale_zp, quantize_data
from torch import nn
from torch.nn import functional as F

from distill.train.fake_quantize import fake_quantize, rounded_inputs, rounded_weights


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)
    )


@pytest.mark.parametrize("bits", [7, 8])
def test_weights_are_rounded_as_the_runtime_rounds_them(bits: int) -> None:
    sizes = torch.tensor([1e-3, 1.0, 7.0])[:, None, None, None]
    weight = torch.randn(3, 3, 3, 3, generator=torch.Generator().manual_seed(1)) * sizes
    for own, channel in zip(rounded_weights(weight, bits), weight, strict=True):
        array = channel.numpy()
        zero, scale, steps = quantize_data(array, onnx.TensorProto.INT8, True, reduce_range=bits == 7)
        assert zero == 0
        np.testing.assert_allclose(
            own.numpy(), steps.astype(np.float32) * scale, atol=1e-5 * float(np.abs(array).max())
        )


def test_a_channel_of_zeros_stays_one() -> None:
    assert rounded_weights(torch.zeros(2, 3), 8).tolist() == [[0.0] * 3] * 2


def test_inputs_are_rounded_as_the_runtime_rounds_them() -> None:
    values = torch.randn(5, 40, generator=torch.Generator().manual_seed(2)) * 3 + 1
    low, high = np.float32(values.min()), np.float32(values.max())
    zero, scale = compute_scale_zp(low, high, np.uint8(0), np.uint8(255), symmetric=False)
    expected = (np.rint(values.numpy() / scale + zero).clip(0, 255) - np.float32(zero)) * scale
    np.testing.assert_allclose(rounded_inputs(values).numpy(), expected, atol=1.01 * float(scale))
    assert len(rounded_inputs(values).unique()) <= 256
    assert rounded_inputs(torch.tensor([0.0, 1.0, 255.0])).tolist() == [0.0, 1.0, 255.0]
    assert rounded_inputs(torch.zeros(3)).tolist() == [0.0] * 3


def test_a_layer_rounds_in_training_and_is_itself_in_eval_mode() -> None:
    plain, network = _network(), _network()
    assert fake_quantize(network, bits=8) == 2
    images = torch.randn(4, 3, 8, 8)
    assert list(network.state_dict()) == list(plain.state_dict())
    assert [name for name, _ in network.named_parameters()] == [name for name, _ in plain.named_parameters()]
    layer = network[0]
    by_hand = F.conv2d(rounded_inputs(images), rounded_weights(plain[0].weight, 8))
    assert torch.equal(layer(images), by_hand)
    assert not torch.equal(layer(images), plain[0](images))
    assert torch.equal(network.eval()(images), plain.eval()(images))
    assert torch.equal(copy.deepcopy(network)(images), plain(images))


def test_gradients_pass_as_if_nothing_were_rounded() -> None:
    layer = nn.Linear(6, 3)
    fake_quantize(layer, bits=8)
    inputs = torch.randn(4, 6, requires_grad=True)
    layer(inputs).backward(upstream := torch.randn(4, 3))
    weight = layer._parameters["weight"]
    torch.testing.assert_close(inputs.grad, upstream @ rounded_weights(weight.detach(), 8))
    torch.testing.assert_close(weight.grad, upstream.T @ rounded_inputs(inputs.detach()))
    torch.testing.assert_close(layer.bias.grad, upstream.sum(0))


def test_folding_batch_norm_changes_nothing_of_the_rounding() -> None:
    weight, scale = torch.randn(8, 3, 3, 3), torch.linspace(-2, 2, 8)[:, None, None, None] + 0.1
    torch.testing.assert_close(rounded_weights(weight * scale, 8), rounded_weights(weight, 8) * scale)


def test_a_compiled_network_rounds_too() -> None:
    network = _network()
    fake_quantize(network, bits=7)
    images = torch.randn(4, 3, 8, 8)
    expected = copy.deepcopy(network)(images)
    assert torch.equal(torch.compile(network, backend="eager", fullgraph=True)(images), expected)
