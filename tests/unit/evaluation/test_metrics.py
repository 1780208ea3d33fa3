"""Metrics against hand values, float64 NumPy, and scikit-learn."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import sklearn.metrics
import torch
from torch import nn

from distill.errors import DataError, RunError
from distill.evaluation.metrics import evaluate_logits, predict_logits
from distill.results.metrics import PerClass


def numpy_metrics(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    n, num_classes = logits.shape
    shifted = logits - logits.max(axis=1, keepdims=True)
    probabilities = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    ranking = np.argsort(-logits, axis=1)
    correct, confidence = ranking[:, 0] == labels, probabilities.max(axis=1)
    scores = []
    for label in range(num_classes):
        hits = np.sum((labels == label) & correct)
        taken, own = np.sum(ranking[:, 0] == label), np.sum(labels == label)
        if taken + own:
            precision, recall = hits / taken if taken else 0.0, hits / own if own else 0.0
            scores.append((precision, recall, 2 * hits / (taken + own)))
    bins = np.minimum((confidence * 15).astype(int), 14)
    ece = sum(abs(np.sum(correct[bins == b]) - np.sum(confidence[bins == b])) for b in range(15)) / n
    precision, recall, f1 = np.mean(scores, axis=0)
    return {
        "top1": correct.mean(),
        "top5": (ranking[:, :5] == labels[:, None]).any(axis=1).mean(),
        "macro_precision": precision,
        "macro_recall": recall,
        "macro_f1": f1,
        "nll": -np.log(probabilities[np.arange(n), labels]).mean(),
        "ece": ece,
    }


def names(count: int) -> list[str]:
    return [f"class {index}" for index in range(count)]


def log_odds(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows).log()


def random_case(n: int, num_classes: int, seed: int, labels_below: int | None = None, sharpness: float = 1.5):
    rng = np.random.default_rng(seed)
    labels = rng.integers(labels_below or num_classes, size=n)
    logits = rng.normal(size=(n, num_classes)) * sharpness + 3.0 * np.eye(num_classes)[labels]
    return logits.astype(np.float32), labels


@pytest.mark.parametrize(("n", "num_classes"), [(10_000, 100), (500, 10), (1, 12)])
def test_equals_numpy(n, num_classes):
    logits, labels = random_case(n, num_classes, seed=n)
    result = evaluate_logits(torch.from_numpy(logits), torch.from_numpy(labels), names(num_classes))
    expected = numpy_metrics(logits.astype(np.float64), labels)
    assert {key: getattr(result, key) for key in expected} == pytest.approx(expected, rel=1e-5, abs=2e-6)
    assert result.n == n


def test_equals_scikit_learn_with_absent_classes():
    """Of 14 classes, 9 have images; further ones are guessed; some are neither."""
    logits, labels = random_case(300, 14, seed=5, labels_below=9)
    logits[:, 12:] = -50.0
    result = evaluate_logits(torch.from_numpy(logits), torch.from_numpy(labels), names(14))
    guesses = logits.argmax(axis=1)
    assert set(guesses) - set(labels)

    settings = {"zero_division": 0.0}
    macro = sklearn.metrics.precision_recall_fscore_support(labels, guesses, average="macro", **settings)[:3]
    assert (result.macro_precision, result.macro_recall, result.macro_f1) == pytest.approx(macro, rel=1e-6)
    every = range(14)
    precision, recall, f1, n = sklearn.metrics.precision_recall_fscore_support(
        labels, guesses, labels=every, **settings
    )
    assert [row.precision for row in result.per_class] == pytest.approx(precision, rel=1e-6)
    assert [row.recall for row in result.per_class] == pytest.approx(recall, rel=1e-6)
    assert [row.f1 for row in result.per_class] == pytest.approx(f1, rel=1e-6)
    assert [row.n for row in result.per_class] == list(n)
    assert np.array_equal(result.confusion, sklearn.metrics.confusion_matrix(labels, guesses, labels=every))


def test_hand_values():
    logits = log_odds([0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.5, 0.25, 0.25])
    result = evaluate_logits(logits, torch.tensor([0, 1, 1, 0]), ["cat", "dog", "owl"])

    assert result.top1 == 0.75
    assert result.top5 is None
    assert result.confusion == ((2, 0, 0), (1, 1, 0), (0, 0, 0))
    assert result.per_class == (
        PerClass("cat", precision=0.6666667, recall=1.0, f1=0.8, accuracy=1.0, n=2),
        PerClass("dog", precision=1.0, recall=0.5, f1=0.6666667, accuracy=0.5, n=2),
        PerClass("owl", precision=0.0, recall=0.0, f1=0.0, accuracy=0.0, n=0),
    )
    assert result.macro_precision == pytest.approx(5 / 6, abs=1e-6)  # owl is neither label nor guess
    assert result.macro_recall == pytest.approx(0.75)
    assert result.macro_f1 == pytest.approx(11 / 15, abs=1e-6)
    assert result.nll == pytest.approx(-(math.log(0.8) + math.log(0.3) + math.log(0.7) + math.log(0.5)) / 4, rel=1e-6)
    assert result.ece == pytest.approx((0.2 + 0.6 + 0.3 + 0.5) / 4, rel=1e-6)  # each confidence in a bin of its own


def test_one_bin_holds_certain_and_nearly_certain_answers():
    """Confidences 1 and 0.95 share the last of 15 bins: |1 right of 2 - mean confidence 0.975|."""
    logits = torch.tensor([[100.0, 0.0], [math.log(19.0), 0.0]])
    assert evaluate_logits(logits, torch.tensor([0, 1]), ["a", "b"]).ece == pytest.approx(0.475, rel=1e-5)


def test_calibration_does_not_take_small_logits_for_probabilities():
    logits = torch.tensor([[0.9, 0.1], [0.2, 0.6]])  # all within 0 and 1
    confidence = [1 / (1 + math.exp(-0.8)), 1 / (1 + math.exp(-0.4))]
    expected = (1 - confidence[0] + 1 - confidence[1]) / 2
    assert evaluate_logits(logits, torch.tensor([0, 1]), ["a", "b"]).ece == pytest.approx(expected, rel=1e-5)


def test_accuracies_are_the_exact_quotients():
    """float32 would give 0.8999999761581421, and a gate on equal accuracies would miss."""
    logits = torch.eye(10).repeat(3, 1)
    labels = torch.arange(10).repeat(3)
    labels[::10] = 1
    result = evaluate_logits(logits, labels, names(10))
    assert result.top1 == 27 / 30
    assert result.per_class[1].f1 == pytest.approx(2 * 3 / 9, rel=1e-6)
    assert repr(result.per_class[1].recall) == "0.5"


def test_top5_reads_logits_whose_probabilities_underflow():
    logits = torch.tensor([[900.0] + [-float(rank) for rank in range(11)]])
    top5 = [evaluate_logits(logits, torch.tensor([label]), names(12)).top5 for label in (0, 4, 5, 11)]
    assert top5 == [1.0, 1.0, 0.0, 0.0]


def test_one_image_half_logits_and_a_gradient_are_fine():
    logits = torch.zeros(1, 3, dtype=torch.float16, requires_grad=True)
    result = evaluate_logits(logits, torch.tensor([2]), names(3))
    assert result.nll == pytest.approx(math.log(3))


def test_deterministic_mode_is_kept_and_costs_no_memory():
    """In that mode torchmetrics' own table would have 300 * 700**2 entries, above a gigabyte."""
    logits, labels = random_case(300, 700, seed=0)
    plain = evaluate_logits(torch.from_numpy(logits), torch.from_numpy(labels), names(700))
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        again = evaluate_logits(torch.from_numpy(logits), torch.from_numpy(labels), names(700))
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert again == plain


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_of_a_diverged_model_are_named(bad):
    logits = torch.zeros(4, 3)
    logits[2, 1] = bad
    with pytest.raises(RunError, match="NaN or infinite for 1 of 4 images") as caught:
        evaluate_logits(logits, torch.zeros(4, dtype=torch.int64), names(3))
    assert "optim.lr" in caught.value.hint


def test_refuses_what_does_not_fit():
    with pytest.raises(DataError, match="no images"):
        evaluate_logits(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), names(3))
    with pytest.raises(ValueError, match=r"logits \(2, 3\), labels \(2,\), 4 class names"):
        evaluate_logits(torch.zeros(2, 3), torch.tensor([0, 1]), names(4))
    with pytest.raises(ValueError, match="labels run from 0 to 3, classes from 0 to 2"):
        evaluate_logits(torch.zeros(2, 3), torch.tensor([0, 3]), names(3))


def test_predict_logits_keeps_the_order_and_makes_float32():
    images = torch.arange(10.0).reshape(10, 1, 1, 1)

    def forward(batch):
        assert torch.is_inference_mode_enabled()
        return batch.flatten(1).repeat(1, 2).to(torch.bfloat16)

    batches = [images[:4], images[4:8], images[8:]]
    logits = predict_logits(forward, batches)
    assert (logits.dtype, logits.device.type) == (torch.float32, "cpu")
    assert torch.equal(logits, torch.arange(10.0)[:, None].repeat(1, 2))


def test_predicted_logits_may_enter_a_loss():
    logits = predict_logits(nn.Flatten(), [torch.ones(2, 3)])
    student = torch.zeros(2, 3, requires_grad=True)
    (student * logits).sum().backward()
    assert torch.equal(student.grad, torch.ones(2, 3))


def test_predict_logits_survives_a_model_that_reuses_its_output():
    output = torch.empty(2, 3)
    logits = predict_logits(output.copy_, [torch.zeros(2, 3), torch.ones(2, 3)])
    assert torch.equal(logits.sum(dim=1), torch.tensor([0.0, 0.0, 3.0, 3.0]))


def test_predict_logits_of_nothing():
    with pytest.raises(DataError, match="no images to predict"):
        predict_logits(nn.Identity(), [])


def test_balanced_accuracy_and_the_commonest_mistakes_agree_with_scikit_learn_and_a_count() -> None:
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 4, (200,), generator=generator)  # class 4 has no image, but is guessed
    logits = torch.randn(200, 5, generator=generator)
    names = ("a", "b", "c", "d", "e")
    result = evaluate_logits(logits, labels, names)
    guesses = logits.argmax(1)
    assert 4 in guesses
    with pytest.warns(UserWarning, match="not in y_true"):
        expected = sklearn.metrics.balanced_accuracy_score(labels, guesses)
    assert result.balanced_accuracy == pytest.approx(expected, abs=1e-6)
    assert result.balanced_accuracy != pytest.approx(result.macro_recall, abs=1e-3)
    pairs = zip(labels.tolist(), guesses.tolist(), strict=True)
    mistakes = Counter((names[true], names[guess]) for true, guess in pairs if true != guess)
    found = result.top_confusions(most=25)
    assert {(each.label, each.predicted): each.n for each in found} == mistakes
    assert [each.n for each in found] == sorted(mistakes.values(), reverse=True)
    assert result.top_confusions(most=3) == found[:3]
