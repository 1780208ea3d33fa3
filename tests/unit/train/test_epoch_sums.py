"""Sums over an epoch against NumPy, and a loss that is not finite."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distill.errors import RunError
from distill.objectives import LossParts
from distill.train.epoch_sums import Tally

CPU = torch.device("cpu")


def _result(loss: float, ce: float) -> LossParts:
    return LossParts(torch.tensor(loss), {"ce": torch.tensor(ce)})


def test_means_weigh_batches_by_their_images() -> None:
    tally = Tally(CPU)
    batches = [(2.0, 1.0, 3), (5.0, 4.0, 1)]
    for step, (loss, ce, images) in enumerate(batches):
        logits = torch.eye(4)[:images]
        tally.add(_result(loss, ce), logits, torch.zeros(images, dtype=torch.int64), step=step)
    metrics = tally.metrics()
    weights = [3, 1]
    assert metrics["train_loss"] == pytest.approx(np.average([2.0, 5.0], weights=weights))
    assert metrics["train_ce"] == pytest.approx(np.average([1.0, 4.0], weights=weights))
    assert metrics["train_top1"] == 2 / 4  # the first image of each batch


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_the_first_loss_that_is_not_finite_is_named(bad: float) -> None:
    tally = Tally(CPU)
    labels = torch.zeros(2, dtype=torch.int64)
    for step, loss in enumerate([1.0, bad, 2.0, bad]):
        tally.add(_result(loss, 7.0), torch.zeros(2, 3), labels, step=step)
    with pytest.raises(RunError, match=r"epoch 5, step 2: loss (nan|inf), ce 7; learning rate 0.1") as caught:
        tally.check_finite(epoch=4, lr=0.1)
    with pytest.raises(RunError, match=r"epoch 1, step 2") as at_once:
        tally.check_finite(epoch=0, lr=0.1)
    assert [("checkpoint" in str(each.value.hint)) for each in (caught, at_once)] == [True, False]  # none is there yet


def test_a_restored_tally_goes_on() -> None:
    labels = torch.zeros(3, dtype=torch.int64)
    one, two = Tally(CPU), Tally(CPU)
    one.add(_result(1 / 3, 0.1), torch.eye(3), labels, step=0)
    two.add_state(one.state_dict())
    for tally in (one, two):
        tally.add(_result(0.7, 0.2), torch.eye(3), labels, step=1)
        tally.check_finite(epoch=0, lr=0.1)
    assert one.metrics() == two.metrics()


def test_one_that_saved_nothing_takes_part_in_the_sums_of_all() -> None:
    """A run that goes on with more processes: with no step left in its epoch, all of them end it together."""
    saved, late = Tally(CPU), Tally(CPU)
    saved.add(_result(0.5, 0.25), torch.eye(4), torch.zeros(4, dtype=torch.int64), step=0)
    late.begin_as(saved.state_dict())
    asked: list[list[float]] = []
    late.check_finite(epoch=0, lr=0.1, gather=lambda row: asked.append(row) or [row, [-1.0, 0.0, 0.0]])
    assert len(asked[0]) == 3
    both: list[torch.Tensor] = []
    for tally in (saved, late):
        tally.reduce(lambda sums: both.append(sums) or sums)
    late.reduce(lambda _: both[0] + both[1])
    assert late.metrics() == saved.metrics()
    late.begin_as(Tally(CPU).state_dict())  # nor does that which saved nothing change one
    assert late.metrics() == saved.metrics()
