"""Int8 graphs, against integer arithmetic by hand."""

from __future__ import annotations

import resource
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from distill.compression.quantize import CALIBRATIONS, SCHEMES, Scheme, int8_schemes, quantize_model, quantizer
from distill.errors import DistillError
from distill.models import Normalize
from distill.models.deployed import Deployed
from distill.models.onnx_metadata import FileAbout
from distill.models.onnx_open import session
from distill.models.onnx_write import INPUT, OUTPUT, to_onnx

PLAIN = Normalize(mean=(0.0,) * 3, std=(1.0 / 255,) * 3, input_size=2)  # the identity on bytes
ABOUT = FileAbout("net", "student", ("a", "b", "c", "d"), 2, "0" * 64, "", 1, 1.0)


def _exported(network: nn.Module, side: int = 2, normalize: Normalize = PLAIN) -> onnx.ModelProto:
    return to_onnx(Deployed(network.eval(), normalize, image_size=side), ABOUT)


def _images(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 3, side, side), dtype=np.uint8)


def _answers(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    return session(model.SerializeToString(), threads=1, place="test").run([OUTPUT], {INPUT: images})[0]


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_a_linear_layer_is_what_rounding_by_hand_gives(scheme: Scheme) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(12, 4)
    images = _images(64, 2)
    made = quantize_model(_exported(nn.Sequential(nn.Flatten(), linear)), images, scheme)

    x = images.reshape(64, -1).astype(np.float64)
    low, high = min(x.min(), 0.0), max(x.max(), 0.0)
    step = (high - low) / 255
    zero = np.rint(-low / step) - (128 if scheme.activations == "int8" else 0)
    bounds = (-128, 127) if scheme.activations == "int8" else (0, 255)
    rounded_x = (np.clip(np.rint(x / step) + zero, *bounds) - zero) * step
    w, b = linear.weight.detach().double().numpy(), linear.bias.detach().double().numpy()
    most = 63.5 if scheme.reduce_range else 127.5
    scale = np.abs(w).max(axis=1, keepdims=True) / most  # symmetric, one for each output
    rounded_w = np.rint(w / scale) * scale
    expected = rounded_x @ rounded_w.T + b
    span = np.abs(expected).max()
    found = _answers(made, images)
    # the output is rounded to 255 steps as well, and the runtime's weight scale may differ by half a step
    assert np.abs(found - expected).max() <= 0.012 * span
    assert np.abs(found - (x @ w.T + b)).max() <= 0.02 * span
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in made.graph.node}


@pytest.mark.parametrize(("more", "native"), [(-1000, False), (10, False), (10, True)], ids=["ours", "its", "native"])
def test_a_full_disk_is_told_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: int, native: bool
) -> None:
    """The graph, the quantiser's files, and those of native code, which does not notice and reads half of it back."""

    def read_back(*_args: object) -> None:
        raise ValueError("Error parsing message with type 'onnx.ModelProto': Wire format was corrupt")

    if native:
        monkeypatch.setattr("distill.compression.quantize._quantize", read_back)
    model = _exported(nn.Sequential(nn.Flatten(), nn.Linear(12, 300), nn.ReLU(), nn.Linear(300, 4)))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (model.ByteSize() + more, before[1]))
    try:
        with pytest.raises(DistillError) as caught:
            quantize_model(model, _images(64, 2), SCHEMES[0])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.message.startswith(f"cannot write {tmp_path}/distill-")
    assert caught.value.message.endswith(": File too large")
    assert "TMPDIR=" in (caught.value.hint or "")
    assert list(tmp_path.glob("distill-*")) == []


def _convolutions() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip


def test_bias_correction_takes_the_mean_error_out() -> None:
    """Weights of few distinct sizes round badly, all to one side: the mean of the answers shows it."""
    network = _convolutions()
    with torch.no_grad():
        network[2].weight.fill_(0.0042)
        network[2].weight[:, :, 0, 0] = 1.0  # one large weight a channel sets the step; the rest rounds up
    normalize = Normalize((0.5,) * 3, (0.25,) * 3, 8)
    model, images = _exported(network, 8, normalize), _images(128, 8)
    exact = _answers(model, images)
    errors = {
        corrected: np.abs(
            (_answers(quantize_model(model, images, Scheme(bias_correction=corrected)), images) - exact).mean(axis=0)
        ).max()
        for corrected in (False, True)
    }
    assert errors[True] < 0.5 * errors[False]


@pytest.mark.parametrize("care", CALIBRATIONS, ids=lambda care: str(Scheme(**care)))
def test_every_degree_of_care_makes_a_graph_that_answers_nearly_alike(care: dict) -> None:
    normalize = Normalize((0.5,) * 3, (0.25,) * 3, 8)
    model, images = _exported(_convolutions(), 8, normalize), _images(100, 8)  # no multiple of a batch
    scheme = Scheme(**care)
    made = quantize_model(model, images, scheme)
    exact, found = _answers(model, images), _answers(made, images)
    assert np.abs(found - exact).max() <= 0.1 * np.abs(exact).max()
    metadata = {each.key: each.value for each in made.metadata_props}
    about = FileAbout.from_metadata(metadata, place="test")
    assert (about.arithmetic, about.scheme, about.classes) == ("int8", str(scheme), ABOUT.classes)
    assert set(metadata) == set(ABOUT.to_metadata())  # nothing of the quantiser's own


def test_the_ends_stay_in_float() -> None:
    normalize = Normalize((0.5,) * 3, (0.25,) * 3, 8)
    model, images = _exported(_convolutions(), 8, normalize), _images(64, 8)
    made = quantize_model(model, images, Scheme(float_ends=True))
    floats = [tensor.name for tensor in made.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    assert any(name.endswith("network.0.weight") for name in floats)
    assert any(name.endswith("network.6.weight") for name in floats)
    assert not any(name.endswith("network.2.weight") for name in floats)


def test_of_an_enlarged_image_the_first_layer_and_what_comes_before_stay_in_float() -> None:
    """A filter of sharp detail on a smooth picture: of its answer most would be what rounding the pixels makes."""
    network = _convolutions()
    with torch.no_grad():  # it sums to nothing, so that a constant picture is none to it
        network[0].weight.copy_(40 * (network[0].weight - network[0].weight.mean(dim=(2, 3), keepdim=True)))
    normalize = Normalize((0.5,) * 3, (0.25,) * 3, 40)
    ramps = np.linspace(0, 1, 8) * np.random.default_rng(0).uniform(40, 250, (64, 3, 8, 1))
    model, images = _exported(network, 8, normalize), ramps.astype(np.uint8)
    exact = _answers(model, images)
    errors = []
    for scheme in (Scheme(), *int8_schemes(enlarged=True)[:1]):
        made = quantize_model(model, images, scheme)
        errors.append(np.square(_answers(made, images) - exact).mean())
    assert errors[1] < 0.5 * errors[0]
    nodes = list(made.graph.node)
    first = next(at for at, node in enumerate(nodes) if node.op_type == "Conv")
    into = {name for node in nodes[:first] if node.op_type == "QuantizeLinear" for name in node.input}
    assert not into & {name for node in nodes[: first + 1] for name in node.output}
    assert int8_schemes(enlarged=False) == SCHEMES


@pytest.mark.parametrize("care", CALIBRATIONS, ids=lambda care: str(Scheme(**care)))
def test_what_is_made_after_others_is_what_is_made_alone(care: dict) -> None:
    """Ranges are found once for each calibration, and used again."""
    normalize = Normalize((0.5,) * 3, (0.25,) * 3, 8)
    model, images = _exported(_convolutions(), 8, normalize), _images(100, 8)
    scheme = Scheme("int8", **care)
    with quantizer(model, images) as made_by:
        made_by(Scheme("uint8", calibration=scheme.calibration))
        after = made_by(scheme)
    alone = quantize_model(model, images, scheme)
    assert after.SerializeToString(deterministic=True) == alone.SerializeToString(deterministic=True)


def test_the_fp32_graph_is_left_as_it_was() -> None:
    model = _exported(nn.Sequential(nn.Flatten(), nn.Linear(12, 4)))
    before = model.SerializeToString(deterministic=True)
    quantize_model(model, _images(8, 2), Scheme())
    assert model.SerializeToString(deterministic=True) == before
