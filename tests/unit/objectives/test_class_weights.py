"""Classes that weigh unlike: against scikit-learn's weights and its weighted log loss, and torch's."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from scipy.special import softmax
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight

from distill.errors import RecipeError
from distill.objectives import NetworkOutput, build_objective, cross_entropy, resolve_class_weights
from distill.recipe.objectives import KDObjective, SimKDObjective, SupervisedObjective

LABELS = np.repeat([0, 1, 2], [90, 8, 2])
CLASSES = ("common", "rare", "rarest")
LOGITS = torch.from_numpy(np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32))


def test_balanced_is_scikit_learns() -> None:
    weights = resolve_class_weights("balanced", LABELS, CLASSES)
    assert weights is not None
    expected = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    assert weights.numpy() == pytest.approx(expected)
    assert weights.numpy()[LABELS].mean() == pytest.approx(1.0)


def test_a_class_without_training_images_takes_nothing_from_the_others() -> None:
    weights = resolve_class_weights("balanced", LABELS, (*CLASSES, "none"))
    assert weights is not None
    assert weights.tolist() == [*resolve_class_weights("balanced", LABELS, CLASSES).tolist(), 0.0]


def test_the_loss_is_scikit_learns_log_loss_by_sample_weight() -> None:
    weights = resolve_class_weights("balanced", LABELS, CLASSES)
    loss = cross_entropy(LOGITS, torch.from_numpy(LABELS), class_weights=weights).item()
    probabilities = softmax(LOGITS.double().numpy(), axis=1)
    assert loss == pytest.approx(
        log_loss(LABELS, probabilities, sample_weight=compute_sample_weight("balanced", LABELS)), rel=1e-5
    )
    # over all images torch's mean by weights is the same, as these have the mean 1
    assert loss == pytest.approx(F.cross_entropy(LOGITS, torch.from_numpy(LABELS), weight=weights).item(), rel=1e-5)


def test_a_batch_without_rare_classes_is_no_louder() -> None:
    weights = torch.tensor([0.5, 4.0])
    logits, labels = torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64)
    assert cross_entropy(logits, labels, class_weights=weights).item() == pytest.approx(0.5 * np.log(2))


def test_mixed_labels_each_count_as_their_class_does() -> None:
    weights, labels, partners = torch.tensor([0.5, 1.0, 4.0]), torch.tensor([0, 2]), torch.tensor([1, 0])
    mix = SimpleNamespace(partner_labels=partners, weight=torch.tensor([0.75, 0.2]))
    logits = LOGITS[:2]
    loss = cross_entropy(logits, labels, mix=mix, label_smoothing=0.1, class_weights=weights)
    one_by_one = [
        [F.cross_entropy(logits[i : i + 1], y[i : i + 1], label_smoothing=0.1).item() for i in range(2)]
        for y in (labels, partners)
    ]
    first = 0.75 * 0.5 * one_by_one[0][0] + 0.25 * 1.0 * one_by_one[1][0]
    second = 0.2 * 4.0 * one_by_one[0][1] + 0.8 * 0.5 * one_by_one[1][1]
    assert loss.item() == pytest.approx((first + second) / 2, rel=1e-5)
    alone = SimpleNamespace(partner_labels=partners, weight=torch.ones(2))
    assert cross_entropy(logits, labels, mix=alone, class_weights=weights).item() == pytest.approx(
        cross_entropy(logits, labels, class_weights=weights).item()
    )


def test_given_weights_stand_and_equal_ones_change_nothing() -> None:
    assert resolve_class_weights(None, LABELS, CLASSES) is None
    assert resolve_class_weights((1.0, 2.5, 0.0), LABELS, CLASSES).tolist() == [1.0, 2.5, 0.0]
    labels = torch.from_numpy(LABELS)
    plain = cross_entropy(LOGITS, labels, label_smoothing=0.1)
    torch.testing.assert_close(cross_entropy(LOGITS, labels, label_smoothing=0.1, class_weights=torch.ones(3)), plain)


def test_the_objective_weighs_its_cross_entropy_alone() -> None:
    weights = torch.tensor([0.2, 1.0, 3.0])
    batch = SimpleNamespace(labels=torch.from_numpy(LABELS), mix=None)
    student, teacher = NetworkOutput(LOGITS), NetworkOutput(LOGITS.flip(0))
    plain, weighed = (
        build_objective(KDObjective(kind="kd"), class_weights=each)(student, teacher, batch) for each in (None, weights)
    )
    assert weighed.parts["kd"] == plain.parts["kd"]
    assert weighed.parts["ce"].item() == pytest.approx(
        cross_entropy(LOGITS, batch.labels, class_weights=weights).item()
    )
    assert weighed.parts["ce"] != plain.parts["ce"]
    assert not build_objective(SupervisedObjective(), class_weights=weights).state_dict()  # nothing more to save


def test_as_many_as_classes() -> None:
    with pytest.raises(RecipeError, match=r"class_weights has 2 numbers, and the data has 3 classes") as caught:
        resolve_class_weights((1.0, 2.0), LABELS, CLASSES)
    assert "common, rare, rarest" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("spec", "settings"),
    [
        (SupervisedObjective, {"class_weights": (0.0, 0.0)}),
        (SupervisedObjective, {"class_weights": ()}),
        (SupervisedObjective, {"class_weights": (1.0, -1.0)}),
        (SupervisedObjective, {"class_weights": "equal"}),
        (KDObjective, {"kind": "kd", "ce_weight": 0.0, "class_weights": "balanced"}),
        (SimKDObjective, {"kind": "simkd", "class_weights": "balanced"}),
    ],
)
def test_what_weighs_nothing_is_refused(spec: type, settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        spec(**settings)
