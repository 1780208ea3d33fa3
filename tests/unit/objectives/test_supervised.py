"""Cross-entropy: hand values, torch's probability targets, and float64 NumPy."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.objectives.supervised import cross_entropy, labelled_cross_entropy


def mixed(partner: list[int], weight: list[float]) -> SimpleNamespace:
    return SimpleNamespace(partner_labels=torch.tensor(partner), weight=torch.tensor(weight))


def numpy_soft_cross_entropy(logits: np.ndarray, targets: np.ndarray) -> float:
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return float(-(targets * log_probabilities).sum(axis=1).mean())


def test_hand_value():
    logits = torch.tensor([[math.log(7.0), math.log(2.0), 0.0]])  # probabilities 0.7, 0.2, 0.1
    assert cross_entropy(logits, torch.tensor([1])).item() == pytest.approx(-math.log(0.2), rel=1e-6)


def test_mixed_hand_value():
    logits = torch.tensor([[math.log(7.0), math.log(2.0), 0.0]] * 2)
    loss = cross_entropy(logits, torch.tensor([0, 1]), mix=mixed([1, 2], [0.75, 0.5]))
    first = -0.75 * math.log(0.7) - 0.25 * math.log(0.2)
    second = -0.5 * math.log(0.2) - 0.5 * math.log(0.1)
    assert loss.item() == pytest.approx((first + second) / 2, rel=1e-6)


def test_smoothing_hand_value_on_both_labels():
    logits = torch.tensor([[math.log(6.0), math.log(3.0), 0.0]])  # probabilities 0.6, 0.3, 0.1
    loss = cross_entropy(logits, torch.tensor([0]), label_smoothing=0.3, mix=mixed([2], [0.8]))
    # 0.7 goes to the labels as 0.8 : 0.2, and 0.1 to each class
    expected = -(0.66 * math.log(0.6) + 0.1 * math.log(0.3) + 0.24 * math.log(0.1))
    assert loss.item() == pytest.approx(expected, rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    batch=st.integers(1, 9),
    classes=st.integers(2, 30),
    smoothing=st.sampled_from([0.0, 0.1, 0.9]),
    scale=st.sampled_from([0.1, 3.0, 60.0]),
)
def test_equals_soft_targets(seed, batch, classes, smoothing, scale):
    rng = np.random.default_rng(seed)
    logits = (rng.normal(size=(batch, classes)) * scale).astype(np.float32)
    labels, partners = rng.integers(classes, size=(2, batch))
    weight = rng.random(batch, dtype=np.float32)
    one_hot = np.eye(classes)
    targets = weight[:, None] * one_hot[labels] + (1 - weight[:, None].astype(np.float64)) * one_hot[partners]
    targets = (1 - smoothing) * targets + smoothing / classes

    mix = SimpleNamespace(partner_labels=torch.from_numpy(partners), weight=torch.from_numpy(weight))
    ours = cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels), label_smoothing=smoothing, mix=mix).item()

    assert ours == pytest.approx(numpy_soft_cross_entropy(logits.astype(np.float64), targets), rel=2e-5, abs=1e-6)
    by_torch = F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(targets).float()).item()
    assert ours == pytest.approx(by_torch, rel=2e-5, abs=1e-6)


def test_a_weight_of_one_is_no_mix():
    logits, labels = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3, 0])
    unmixed = cross_entropy(logits, labels, label_smoothing=0.1)
    torch.testing.assert_close(
        cross_entropy(logits, labels, label_smoothing=0.1, mix=mixed([3] * 5, [1.0] * 5)), unmixed
    )


@pytest.mark.parametrize("mix", [None, mixed([1, 0], [0.3, 0.6])])
def test_is_float32_under_autocast_and_for_half_logits(mix):
    logits = torch.tensor([[1.0, -3.0], [0.5, 200.0]], dtype=torch.bfloat16, requires_grad=True)
    labels = torch.tensor([1, 0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = cross_entropy(logits, labels, mix=mix)
    assert loss.dtype == torch.float32
    assert loss.shape == ()
    assert loss.item() == cross_entropy(logits.detach().float(), labels, mix=mix).item()
    loss.backward()
    assert logits.grad.dtype == torch.bfloat16


def test_gradient_is_softmax_minus_target():
    logits = torch.tensor([[0.2, -1.0, 2.0]], requires_grad=True)
    cross_entropy(logits, torch.tensor([0]), mix=mixed([1], [0.4])).backward()
    exponentials = np.exp([0.2, -1.0, 2.0])
    expected = exponentials / exponentials.sum() - [0.4, 0.6, 0.0]
    np.testing.assert_allclose(logits.grad.numpy()[0], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_an_image_without_a_label_pays_nothing(smoothing):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 4, generator=generator).requires_grad_()
    labels = torch.tensor([2, -1, 0, -1, 3, 1])
    known = labels >= 0
    loss = labelled_cross_entropy(logits, labels, label_smoothing=smoothing)
    torch.testing.assert_close(loss, cross_entropy(logits[known], labels[known], label_smoothing=smoothing))
    loss.backward()
    assert (logits.grad[~known] == 0).all()
    assert (logits.grad[known] != 0).any(dim=1).all()
    assert labelled_cross_entropy(logits, torch.full((6,), -1)).item() == 0.0


def test_of_a_mixed_image_the_label_that_is_there_pays_by_its_share():
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    labels, partners, weights = [0, -1, 2, -1], [1, 2, -1, -1], [0.75, 0.25, 0.5, 0.5]
    loss = labelled_cross_entropy(logits, torch.tensor(labels), mix=mixed(partners, weights))
    log = logits.double().log_softmax(1).numpy()
    paid = whole = 0.0
    for row, (own, partner, weight) in enumerate(zip(labels, partners, weights, strict=True)):
        for label, share in ((own, weight), (partner, 1 - weight)):
            if label >= 0:
                paid, whole = paid - share * log[row, label], whole + share
    assert loss.item() == pytest.approx(paid / whole, rel=1e-5)


def test_the_parts_of_a_step_average_to_the_mean_over_its_labels():
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(3))
    labels = torch.tensor([2, -1, -1, -1, 3, 1])
    parts = [
        labelled_cross_entropy(logits[at], labels[at], label_fraction=torch.tensor(3 / 6))
        for at in (slice(4), slice(4, 6))
    ]
    torch.testing.assert_close((4 * parts[0] + 2 * parts[1]) / 6, labelled_cross_entropy(logits, labels))


def test_where_every_image_has_its_label_it_is_cross_entropy():
    logits, labels = torch.randn(5, 4, generator=torch.Generator().manual_seed(2)), torch.tensor([0, 1, 2, 3, 0])
    mix = mixed([3, 2, 1, 0, 1], [0.9, 0.5, 0.3, 1.0, 0.6])
    torch.testing.assert_close(labelled_cross_entropy(logits, labels, mix=mix), cross_entropy(logits, labels, mix=mix))


def test_classes_that_weigh_unlike_do_so_among_the_labels_that_there_are():
    logits, weights = torch.randn(5, 3, generator=torch.Generator().manual_seed(3)), torch.tensor([0.5, 2.0, 1.0])
    labels = torch.tensor([1, -1, 0, -1, 2])
    known = labels >= 0
    loss = labelled_cross_entropy(logits, labels, class_weights=weights)
    torch.testing.assert_close(loss, cross_entropy(logits[known], labels[known], class_weights=weights))
