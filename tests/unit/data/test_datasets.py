"""Data sets that need nothing but this package, and what every data set promises."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from distill.data.datasets import LOADERS, load_dataset, num_classes
from distill.data.images import Split, channel_stats, pixel_digest
from distill.recipe.schema import DataSpec


def digits(**changes):
    return load_dataset(DataSpec(**{"name": "digits", "image_size": 16, **changes}))


@pytest.mark.parametrize("name", ["digits", "synthetic"])
def test_shapes_types_and_classes(name):
    spec = DataSpec(name=name, image_size=12)
    data = load_dataset(spec)
    for split in (data.train, data.test):
        assert split.images.shape == (len(split), 3, 12, 12)
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int64
        assert split.files is None
        assert set(split.labels.tolist()) == set(range(10))
    assert len(data.classes) == num_classes(spec) == 10
    assert data.val is None


@pytest.mark.parametrize("name", LOADERS)
def test_a_side_that_is_not_settled_is_a_mistake_of_ours_and_that_of_a_name_is_known(name):
    spec = DataSpec(name=name, code="mine:make" if name == "python" else None)
    if spec.is_found_out:
        with pytest.raises(AssertionError, match="was not settled"):
            _ = spec.side
    else:
        assert spec.side in (28, 32, 64, 96)


def test_every_name_of_the_schema_has_a_loader():
    assert set(LOADERS) == set(DataSpec.model_fields["name"].annotation.__args__)


def test_digits_are_the_bundled_ones_each_once():
    data = digits(image_size=8)
    assert data.classes == tuple("0123456789")
    assert (len(data.train), len(data.test)) == (1438, 359)
    both = np.concatenate([data.train.images, data.test.images])
    assert np.array_equal(both[:, 0], both[:, 1])
    assert np.array_equal(both[:, 0], both[:, 2])
    bundled = np.rint(load_digits().images * 255 / 16).astype(np.uint8)
    assert sorted(image.tobytes() for image in both[:, 0]) == sorted(image.tobytes() for image in bundled)


def test_digits_test_set_is_stratified_and_fixed():
    data = digits()
    share = np.bincount(data.test.labels) / np.bincount(load_digits().target)
    assert np.abs(share - 0.2).max() < 0.01
    assert np.array_equal(data.test.labels, digits(split_seed=5).test.labels)


def test_enlarging_keeps_the_mean_brightness():
    small, large = digits(image_size=8), digits(image_size=32)
    difference = small.train.images.mean(axis=(1, 2, 3)) - large.train.images.mean(axis=(1, 2, 3))
    assert np.abs(difference).max() < 3


@pytest.mark.parametrize(("name", "at_least"), [("digits", 0.95), ("synthetic", 0.9)])
def test_what_is_learned_on_train_holds_on_test(name, at_least):
    """A nearest-neighbour classifier of another library: labels belong to their images, in both splits."""
    data = load_dataset(DataSpec(name=name, image_size=8))
    train, test = (split.take(slice(None)).reshape(len(split), -1).astype(float) for split in (data.train, data.test))
    score = KNeighborsClassifier(3).fit(train, data.train.labels).score(test, data.test.labels)
    assert score > at_least


def test_nothing_depends_on_when_it_is_loaded():
    assert digits().fingerprint == digits().fingerprint
    assert digits().fingerprint != digits(limit=1000).fingerprint


def test_fingerprints_that_other_machines_must_find_too():
    synthetic = load_dataset(DataSpec(name="synthetic", image_size=32))
    assert synthetic.fingerprint.startswith("6163f35b3dd19914")
    assert digits(image_size=32).fingerprint.startswith("2ab697a7b88f2e16")


def test_limits_are_balanced_and_keep_the_order():
    whole, part = digits(), digits(limit=100, test_limit=55)
    assert np.bincount(part.train.labels).tolist() == [10] * 10
    assert np.bincount(part.test.labels).tolist() == [6] * 5 + [5] * 5
    assert np.shares_memory(part.train.images, part.train.images)
    assert (np.diff(part.train.index) > 0).all()
    assert np.array_equal(part.train.take(slice(None)), whole.train.take(part.train.index))
    assert len(digits(limit=10**6).train) == len(whole.train)
    assert not np.array_equal(part.train.index, digits(limit=100, split_seed=1).train.index)


def test_statistics_match_float64_numpy_over_several_chunks(monkeypatch):
    monkeypatch.setattr("distill.data.images._CHUNK_BYTES", 3 * 7 * 7 * 10)
    images = np.random.default_rng(0).integers(0, 256, (37, 3, 7, 7), dtype=np.uint8)
    split = Split(images, np.zeros(37, dtype=np.int64)).subset(np.arange(5, 30))
    values = images[5:30] / 255
    stats = channel_stats(split)
    assert stats.mean == tuple(np.round(values.mean(axis=(0, 2, 3)), 6))
    assert stats.std == tuple(np.round(values.std(axis=(0, 2, 3)), 6))


def test_subsets_of_subsets_share_the_base_and_find_their_images():
    images = np.random.default_rng(0).integers(0, 256, (20, 3, 2, 2), dtype=np.uint8)
    files = tuple(f"{i}.png" for i in range(20))
    inner = Split(images, np.arange(20), files).subset(np.arange(19, 0, -2)).subset(np.array([3, 0, 3]))
    assert inner.images is images
    assert inner.labels.tolist() == [13, 19, 13]
    assert inner.files == ("13.png", "19.png", "13.png")
    taken = inner.take(np.array([1, 2]))
    assert np.array_equal(taken, images[[19, 13]])
    taken[:] = 0  # a copy, writable
    assert images[19].any()
    assert np.array_equal(inner.take(slice(1, None)), images[[19, 13]])
    assert pixel_digest(inner) == pixel_digest(Split(images[[13, 19, 13]].copy(), np.zeros(3, dtype=np.int64)))
