"""Normalising and resizing on the device, against NumPy in float64 and PIL."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from distill.models import Normalize, build_normalize, resolved_model

MEAN, STD = (0.49, 0.48, 0.44), (0.2, 0.25, 0.3)


@pytest.fixture
def pixels():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8))


def _by_hand(x):
    mean, std = (np.array(v, np.float64).reshape(1, 3, 1, 1) for v in (MEAN, STD))
    return (np.asarray(x, np.float64) - 255 * mean) / (255 * std)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16])
def test_normalising_equals_float64(pixels, dtype):
    given = pixels.to(dtype)
    kept = given.clone()
    out = Normalize(MEAN, STD, 32)(given)
    assert out.dtype == torch.float32
    np.testing.assert_allclose(out.numpy(), _by_hand(pixels), atol=2e-6)
    assert torch.equal(given, kept)


def test_an_image_does_not_depend_on_its_batch(pixels):
    normalize = Normalize(MEAN, STD, 24)
    assert torch.equal(normalize(pixels)[1], normalize(pixels[1:2])[0])


@pytest.mark.parametrize("size", [8, 20, 48, 224])
def test_resizing_equals_pillows_antialiased_bilinear(pixels, size):
    out = Normalize(MEAN, STD, size)(pixels)
    assert out.shape == (3, 3, size, size)
    channel = Image.fromarray(pixels[0, 1].numpy().astype(np.float32), mode=None)
    resized = np.asarray(channel.resize((size, size), Image.Resampling.BILINEAR), np.float64)
    np.testing.assert_allclose(out[0, 1].numpy(), (resized - 255 * MEAN[1]) / (255 * STD[1]), atol=1e-4)


def test_constants_made_in_inference_mode_can_be_trained_with_later(pixels):
    normalize = Normalize((0.11, 0.12, 0.13), STD, 32)
    with torch.inference_mode():
        normalize(pixels)
    x = pixels.float().requires_grad_()
    normalize(x).sum().backward()
    np.testing.assert_allclose(x.grad[0, :, 0, 0], 1 / (255 * np.array(STD)), rtol=1e-6)


def test_channels_last_stays(pixels):
    out = Normalize(MEAN, STD, 32)(pixels.contiguous(memory_format=torch.channels_last))
    assert out.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("fields", "mean", "std"),
    [
        ({"weights": "pretrained"}, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ({"weights": "none"}, MEAN, STD),
        ({"weights": "somewhere.safetensors"}, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ({"weights": "somewhere.safetensors", "name": "vit_tiny_patch16_224"}, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ({"normalize": {"mean": [0.5, 0.5, 0.5], "std": [0.1, 0.2, 0.3]}}, (0.5, 0.5, 0.5), (0.1, 0.2, 0.3)),
    ],
)
def test_whose_mean_and_std(spec, fields, mean, std):
    model = spec(**({"source": "timm", "name": "resnet18.tv_in1k", "input_size": 224} | fields))
    normalize = build_normalize(model, mean=MEAN, std=STD)
    assert (normalize.mean, normalize.std, normalize.input_size) == (mean, std, 224)
    resolved = resolved_model(model, normalize)
    assert (resolved.normalize.mean, resolved.normalize.std) == (mean, std)
    assert build_normalize(resolved, mean=(0.0,) * 3, std=(1.0,) * 3) == normalize


def test_a_channel_that_never_varies_is_not_divided_by_zero(spec):
    model = spec(source="students", name="lenet")
    assert build_normalize(model, mean=MEAN, std=(0.2, 0.0, 0.2)).std == (0.2, 1.0, 0.2)
