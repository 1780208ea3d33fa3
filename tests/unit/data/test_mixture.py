"""Batches of labelled and unlabelled images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.data.batches import batch_positions
from distill.data.mixture import Mixture
from distill.data.views import epoch_order

MIXTURES = st.builds(
    Mixture,
    labelled=st.integers(2, 90),
    unlabelled=st.integers(31, 200),
    share=st.floats(0.05, 0.95),
    batch_size=st.integers(2, 32),
)


def batches(mixture, epoch=0, world_size=1):
    order = mixture.order(7, epoch, world_size=world_size)
    return [order[at : at + mixture.batch_size] for at in range(0, len(order), mixture.batch_size)]


@given(MIXTURES, st.integers(0, 3))
def test_an_epoch_shows_every_labelled_image_once_and_each_batch_its_share(mixture, epoch):
    order = mixture.order(7, epoch)
    assert len(order) == mixture.images
    own = order[order < mixture.labelled]
    assert sorted(own) == list(range(mixture.labelled))
    assert order.max(initial=0) < mixture.labelled + mixture.unlabelled
    wanted = min(max(round(mixture.share * mixture.batch_size), 1), mixture.batch_size - 1)
    for batch in batches(mixture, epoch)[:-1]:
        assert (batch >= mixture.labelled).sum() == wanted
    last = batches(mixture, epoch)[-1]
    mine = (last < mixture.labelled).sum()
    assert mine >= 1
    assert len(last) - mine == pytest.approx(mine * wanted / (mixture.batch_size - wanted), abs=0.5)


@given(MIXTURES, st.integers(2, 4))
def test_a_batch_holds_the_same_images_for_any_number_of_processes_and_each_has_its_share(mixture, world_size):
    for alone, together in zip(batches(mixture), batches(mixture, world_size=world_size), strict=True):
        assert sorted(alone) == sorted(together)
        share = (alone >= mixture.labelled).mean()
        for rank in range(world_size):
            part = together[rank::world_size]
            for piece in (part, part[: len(part) // 2], part[len(part) // 2 :]):
                assert abs((piece >= mixture.labelled).sum() - share * len(piece)) < 2


def test_unlabelled_images_go_on_from_epoch_to_epoch_until_all_were_shown():
    mixture = Mixture(labelled=30, unlabelled=100, share=0.5, batch_size=10)
    shown = np.concatenate([order[order >= 30] for order in (mixture.order(3, epoch) for epoch in range(10))])
    assert len(shown) == 300
    for number in range(3):
        assert sorted(shown[number * 100 : (number + 1) * 100]) == list(range(30, 130))
    assert not np.array_equal(shown[:100], shown[100:200])


def test_without_unlabelled_images_the_order_is_what_it_was():
    mixture = Mixture(labelled=23, unlabelled=0, share=0.5, batch_size=4)
    assert mixture.images == 23
    assert np.array_equal(mixture.order(5, 2, world_size=2), epoch_order(5, 2, 23))


def test_an_epoch_that_goes_on_takes_the_batches_that_are_left():
    mixture = Mixture(labelled=30, unlabelled=40, share=0.25, batch_size=8)
    order = mixture.order(1, 4)
    whole = batch_positions(order, 8)
    for a, b in zip(batch_positions(order, 8, start_step=2), whole[2:], strict=True):
        assert np.array_equal(a, b)
