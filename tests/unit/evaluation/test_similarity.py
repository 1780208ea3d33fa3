"""CKA and what answers have in common: against their definitions, and what does not change them."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from distill.evaluation.similarity import (
    CKA,
    class_correlations,
    mean_divergence,
    mean_off_diagonal,
    unbiased_hsic,
)


def features(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def alike(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    found = CKA()
    found.add([ours], [theirs])
    return float(found.value()[0, 0])


def test_unbiased_hsic_is_the_mean_over_all_four_different_images():
    rng = np.random.default_rng(0)
    k, l = (each @ each.T for each in rng.normal(size=(2, 6, 3)))  # noqa: E741
    terms = [k[a, b] * (l[a, b] + l[c, d] - 2 * l[a, c]) for a, b, c, d in permutations(range(6), 4)]
    assert unbiased_hsic(k, l) == pytest.approx(np.mean(terms), rel=1e-9)


def test_cka_is_1_of_a_rotation_a_shift_and_a_scale():
    ours = features(0, 40, 12)
    turn, _ = torch.linalg.qr(features(1, 12, 12))
    assert alike(ours, 7 * ours @ turn + features(2, 12)) == pytest.approx(1.0, abs=1e-4)
    assert alike(ours, 1e-3 * ours + 10.0) == pytest.approx(1.0, abs=1e-4)
    assert alike(1e4 * ours, ours) == pytest.approx(1.0, abs=1e-4)


def test_cka_of_nothing_in_common_is_about_0_and_a_part_lies_between():
    ours, theirs = features(0, 400, 10), features(1, 400, 10)
    assert abs(alike(ours, theirs)) < 0.02
    both = torch.cat([ours, theirs], dim=1)
    assert alike(ours, both) == pytest.approx(0.5**0.5, abs=0.05)  # of two equal shares


def test_cka_is_the_papers_where_images_are_many():
    """With 2,000 images the biased estimate, by Frobenius norms, has almost no bias left."""
    ours = features(0, 2000, 6)
    theirs = torch.relu(ours @ features(1, 6, 9))
    x, y = (each.double().numpy() - each.double().numpy().mean(axis=0) for each in (ours, theirs))
    expected = np.linalg.norm(y.T @ x) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    assert alike(ours, theirs) == pytest.approx(expected, abs=2e-3)


def test_batches_and_the_width_of_a_stage_do_not_decide():
    ours = features(0, 1200, 6)
    theirs = torch.relu(ours @ features(1, 6, 500))
    found = CKA()
    for part in range(0, 1200, 24):
        found.add([ours[part : part + 24]], [theirs[part : part + 24]])
    assert found.images == 1200
    assert float(found.value()[0, 0]) == pytest.approx(alike(ours, theirs), abs=0.02)


def test_every_stage_is_held_against_every_other_and_maps_are_flattened():
    ours = [features(0, 30, 4, 3, 3), features(1, 30, 5)]
    theirs = [features(2, 30, 2, 2, 2), features(1, 30, 5), features(0, 30, 4, 3, 3)]
    found = CKA()
    found.add(ours, theirs)
    value = found.value()
    assert value.shape == (2, 3)
    assert value[0, 2] == pytest.approx(1.0, abs=1e-5)
    assert value[1, 1] == pytest.approx(1.0, abs=1e-5)
    assert np.abs(value[[0, 0, 1, 1], [0, 1, 0, 2]]).max() < 0.4


def test_a_stage_that_answers_all_images_alike_has_no_cka():
    found = CKA()
    found.add([torch.ones(8, 3)], [features(0, 8, 3)])
    assert np.isnan(found.value()).all()


def test_batches_of_fewer_than_4_are_left_out():
    found = CKA()
    found.add([features(0, 3, 2)], [features(1, 3, 2)])
    assert found.images == 0
    with pytest.raises(ValueError, match="batch of 4"):
        found.value()


def test_class_correlations_are_numpys():
    logits = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    np.testing.assert_allclose(class_correlations(logits), np.corrcoef(logits.T.astype(np.float64)), atol=1e-12)
    logits[:, 2] = 3.0
    found = class_correlations(logits)
    assert found[2].tolist() == [0.0, 0.0, 1.0, 0.0]
    assert mean_off_diagonal(found, found) == 0.0


def test_divergence_is_by_hand():
    ours, theirs = np.log([[0.5, 0.5], [0.9, 0.1]]), np.log([[0.8, 0.2], [0.9, 0.1]]) + 7.0
    by_hand = (0.8 * np.log(0.8 / 0.5) + 0.2 * np.log(0.2 / 0.5)) / 2
    assert mean_divergence(ours, theirs) == pytest.approx(by_hand, rel=1e-12)
