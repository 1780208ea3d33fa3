"""Subsets chosen class by class."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data.stratify import balanced_subset, stratified_fraction


def test_a_fraction_takes_the_same_share_of_every_class():
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    chosen = stratified_fraction(labels, 0.1, "key")
    assert np.bincount(labels[chosen]).tolist() == [10, 5, 1]
    assert (np.diff(chosen) > 0).all()


def test_remainders_go_to_the_classes_that_lost_most():
    labels = np.repeat([0, 1, 2], [14, 16, 10])  # 10 %: 1.4, 1.6, 1.0, in total 4
    assert np.bincount(labels[stratified_fraction(labels, 0.1, "key")]).tolist() == [1, 2, 1]


def test_small_classes_give_one_and_keep_one():
    labels = np.array([0, 1, 1, 2, 2, 2])
    assert np.bincount(labels[stratified_fraction(labels, 0.01, "key")], minlength=3).tolist() == [0, 1, 1]
    assert np.bincount(labels[stratified_fraction(labels, 0.5, "key")], minlength=3).tolist() == [0, 1, 2]


def test_no_fraction_takes_nothing():
    chosen = stratified_fraction(np.zeros(5, dtype=np.int64), 0.0, "key")
    assert chosen.shape == (0,)
    assert chosen.dtype == np.int64


def test_other_keys_choose_other_images():
    labels = np.arange(1000) % 4
    one, two = stratified_fraction(labels, 0.2, "key", 0), stratified_fraction(labels, 0.2, "key", 1)
    assert np.array_equal(one, stratified_fraction(labels, 0.2, "key", 0))
    assert 10 < len(np.intersect1d(one, two)) < 100  # 40 by chance


def test_a_balanced_subset_lets_small_classes_give_all_they_have():
    labels = np.repeat([0, 1, 2], [2, 50, 60])
    chosen = balanced_subset(labels, 11, "key")
    assert np.bincount(labels[chosen]).tolist() == [2, 5, 4]
    assert np.array_equal(balanced_subset(labels, 999, "key"), np.arange(112))


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(0, 12), min_size=1, max_size=6), n=st.integers(1, 40))
def test_a_balanced_subset_has_the_size_asked_for_and_grows_by_adding(sizes, n):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    chosen, larger = balanced_subset(labels, n, "key"), balanced_subset(labels, n + 1, "key")
    assert len(chosen) == min(n, len(labels))
    assert set(chosen) <= set(larger)
    counts = np.bincount(labels[chosen], minlength=len(sizes))
    unfilled = [count for count, size in zip(counts, sizes, strict=True) if count < size]
    assert max(counts) - min(unfilled, default=max(counts)) <= 1


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.33, 0.5])
def test_the_total_is_close_to_the_fraction(fraction):
    labels = np.repeat(np.arange(10), np.arange(20, 120, 10))
    assert abs(len(stratified_fraction(labels, fraction, "key")) - fraction * len(labels)) <= 1
