"""Averages over classes against scikit-learn's, and against what evaluate says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score

from distill.evaluation.by_class import balanced_accuracy, few_images_note, macro_f1
from distill.evaluation.metrics import evaluate_logits
from distill.results.metrics import PerClass


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 80), classes=st.integers(2, 8))
def test_they_are_scikit_learns(seed: int, n: int, classes: int) -> None:
    generator = np.random.default_rng(seed)
    labels = generator.choice(classes, n, p=generator.dirichlet(np.ones(classes)))
    guesses = np.where(generator.random(n) < 0.6, labels, generator.integers(0, classes, n))
    confusion = confusion_matrix(labels, guesses, labels=range(classes))
    right, images, guessed = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    recalls = [(guesses[labels == each] == each).mean() for each in np.unique(labels)]
    assert balanced_accuracy(right, images) == pytest.approx(np.mean(recalls))
    if set(guesses) <= set(labels) and len(set(labels)) > 1:  # else scikit-learn warns
        assert balanced_accuracy(right, images) == pytest.approx(balanced_accuracy_score(labels, guesses))
    assert macro_f1(right, images, guessed) == pytest.approx(
        f1_score(labels, guesses, average="macro", zero_division=0)
    )


def test_they_are_what_evaluate_says() -> None:
    generator = np.random.default_rng(0)
    labels = generator.choice(6, 300, p=[0.5, 0.3, 0.1, 0.06, 0.04, 0.0])
    logits = generator.normal(size=(300, 6)) + 2 * np.eye(6)[labels]
    found = evaluate_logits(torch.from_numpy(logits), torch.from_numpy(labels), list("abcdef"))
    confusion = np.array(found.confusion)
    right, images, guessed = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    assert balanced_accuracy(right, images) == pytest.approx(found.balanced_accuracy, rel=1e-6)
    assert macro_f1(right, images, guessed) == pytest.approx(found.macro_f1, rel=1e-6)


def test_classes_with_few_images_are_named_rarest_first() -> None:
    sizes = {"a": 500, "b": 19, "c[1]": 3, "d": 20, "e\n": 0}
    classes = [PerClass(name, 0.5, 0.5, 0.5, 0.5, n) for name, n in sizes.items()]
    note = few_images_note(classes, what="validation images")
    assert note is not None
    assert note.startswith("3 of 5 classes have fewer than 20 validation images (e\\n 0, c[1] 3, b 19): too few")
    assert few_images_note(classes[:1]) is None
