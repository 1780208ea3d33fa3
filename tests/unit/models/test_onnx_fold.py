"""Batch norm behind a max-pool: folded where that changes nothing, against float64 by PyTorch."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from distill.compression.quantize import Scheme, quantize_model
from distill.models import Normalize
from distill.models.deployed import Deployed
from distill.models.onnx_metadata import FileAbout
from distill.models.onnx_open import session
from distill.models.onnx_write import INPUT, OUTPUT, to_onnx
from students.fast import fast

SIDE = 8
NORMALIZE = Normalize(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3), input_size=SIDE)
ABOUT = FileAbout("net", "student", ("a", "b", "c"), SIDE, "0" * 64, "", 1, 1.0)


class _Net(nn.Module):
    """A convolution, a pool, a norm; what the forward does beside them is each test's."""

    def __init__(self, *, bias: bool = False, affine: bool = True, sign: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 5, 3, padding=1, bias=bias)
        self.norm = nn.BatchNorm2d(5, eps=1e-3, affine=affine)
        assert self.norm.running_mean is not None
        assert self.norm.running_var is not None
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.1, 3)
        if affine:
            nn.init.uniform_(self.norm.weight, 0.2, 2.0)
            nn.init.normal_(self.norm.bias)
            with torch.no_grad():
                self.norm.weight[2] *= sign
        self.head = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.gelu(self.norm(F.max_pool2d(self.conv(x), 3, 2, 1))).mean((2, 3)))


class _ReadsTwice(_Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before = self.conv(x)
        return self.head(self.norm(F.max_pool2d(before, 2)).mean((2, 3)) + before.mean((2, 3)))


class _SharesWeights(_Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = self.norm(F.max_pool2d(self.conv(x), 2))
        return self.head(pooled.mean((2, 3)) + self.conv(x.flip(3)).amax((2, 3)))


def _images(count: int = 40) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, 3, SIDE, SIDE), dtype=np.uint8)


def _norms(model: onnx.ModelProto) -> int:
    return sum(node.op_type == "BatchNormalization" for node in model.graph.node)


def _answers(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    return session(model.SerializeToString(), threads=1, place="test").run([OUTPUT], {INPUT: images})[0]


@pytest.mark.parametrize(
    ("network", "left"),
    [
        pytest.param(_Net(), 0, id="without a bias"),
        pytest.param(_Net(bias=True), 0, id="with a bias"),
        pytest.param(_Net(affine=False), 0, id="a norm that learns nothing"),
        pytest.param(_Net(sign=-1.0), 1, id="a scale below 0 would make the largest the smallest"),
        pytest.param(_Net(sign=0.0), 1, id="a scale of 0"),
        pytest.param(_ReadsTwice(), 1, id="the convolution's answer is read elsewhere"),
        pytest.param(_SharesWeights(), 1, id="the weights are another convolution's too"),
    ],
)
def test_the_same_function(network: _Net, left: int) -> None:
    images = _images()
    model = to_onnx(Deployed(network.eval(), NORMALIZE, image_size=SIDE), ABOUT)
    onnx.checker.check_model(model, full_check=True)
    assert _norms(model) == left
    mean, std = (np.array(each).reshape(1, 3, 1, 1) for each in (NORMALIZE.mean, NORMALIZE.std))
    with torch.no_grad():
        expected = network.double()(torch.from_numpy((images / 255.0 - mean) / std)).numpy()
    network.float()
    np.testing.assert_allclose(_answers(model, images), expected, atol=2e-5)


def test_nothing_of_a_folded_norm_stays_in_the_file() -> None:
    model = to_onnx(Deployed(_Net().eval(), NORMALIZE, image_size=SIDE), ABOUT)
    read = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= read


def test_a_channel_that_hardly_varies_outlives_int8() -> None:
    """As on grey pictures, where the first filters of ``fast`` answer the differences of colours with nothing."""
    torch.manual_seed(0)
    network = fast(num_classes=3, input_size=SIDE, channels=(8, 8)).eval()
    conv, norm = network.stages[0][0], network.stages[0][2]
    with torch.no_grad():
        conv.weight[5] *= 50_000.0
        images = torch.from_numpy(_images()).float() / 255
        seen = F.max_pool2d(conv(F.gelu(network.stem[0](images))), 2)
        norm.running_mean.copy_(seen.mean((0, 2, 3)))
        norm.running_var.copy_(seen.var((0, 2, 3)))
    plain = Normalize(mean=(0.0,) * 3, std=(1.0,) * 3, input_size=SIDE)
    model = to_onnx(Deployed(network, plain, image_size=SIDE), ABOUT)
    expected = _answers(model, _images())
    found = _answers(quantize_model(model, _images(), Scheme("uint8", reduce_range=True)), _images())
    error = np.abs(found - expected).max() / np.abs(expected - expected.mean(0)).max()
    assert error < 0.25, "unfolded, the other channels are rounded away"
