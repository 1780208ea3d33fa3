"""A digest of weights: the same for any order, layout or device, another for any change."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from distill.fingerprint import state_sha256


def state() -> dict[str, torch.Tensor]:
    return {
        "b": torch.arange(24, dtype=torch.float32).reshape(1, 2, 3, 4),
        "a": torch.tensor(3),
        "c": torch.ones(5, dtype=torch.bfloat16),
        "d": torch.tensor([True, False]),
        "e": torch.zeros(0, 2),
    }


def test_by_hand():
    pixels = np.arange(6, dtype="<f4")
    text = b'["a", "int64", []]\n' + (3).to_bytes(8, "little") + b'["b", "float32", [2, 3]]\n' + pixels.tobytes()
    tensors = {"b": torch.from_numpy(pixels.reshape(2, 3)), "a": torch.tensor(3)}
    assert state_sha256(tensors) == hashlib.sha256(text).hexdigest()


def test_order_layout_and_gradients_do_not_matter():
    other = dict(reversed(state().items()))
    other["b"] = other["b"].to(memory_format=torch.channels_last).requires_grad_()
    other["c"] = torch.ones(10, dtype=torch.bfloat16)[::2]
    assert state_sha256(other) == state_sha256(state())


@pytest.mark.parametrize(
    "change",
    [
        {"a": torch.tensor(4)},
        {"a": torch.tensor([3])},
        {"a": torch.tensor(3, dtype=torch.int32)},
        {"b": state()["b"].reshape(4, 6)},
        {"c": torch.ones(5, dtype=torch.float16)},
        {"f": torch.zeros(0)},
    ],
)
def test_any_change_shows(change):
    assert state_sha256(state() | change) != state_sha256(state())


def test_negative_zero_is_another_weight():
    assert state_sha256({"a": torch.tensor(0.0)}) != state_sha256({"a": torch.tensor(-0.0)})
