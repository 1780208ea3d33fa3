"""Validation carved from training, and what a run is told about its data."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from distill.data.splits import load_splits, split_train_val
from distill.recipe.schema import DataSpec


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))


def write_folder(root, *, per_class=4, splits=("train", "test")):
    for split in splits:
        for label in ("cat", "dog"):
            for i in range(per_class):
                path = root / split / label / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (8, 8), (len(split) * 10, ord(label[0]), i)).save(path)
    return str(root)


def test_train_and_val_share_nothing_and_lose_nothing():
    labels = np.arange(500) % 7
    carved = split_train_val(labels, val_fraction=0.2, split_seed=3)
    assert np.array_equal(np.sort(np.concatenate([carved.train, carved.val])), np.arange(500))
    assert len(carved.val) == 100
    assert (np.diff(carved.train) > 0).all()
    assert not np.array_equal(carved.val, split_train_val(labels, val_fraction=0.2, split_seed=4).val)


def test_the_carved_images_are_those_of_the_whole_set():
    splits = load_splits(DataSpec(name="synthetic", image_size=8, val_fraction=0.25))
    assert (len(splits.train), len(splits.val), len(splits.test)) == (384, 128, 256)
    whole = splits.dataset.train
    assert np.array_equal(splits.train.take(np.array([5, 0])), whole.images[splits.train_index[[5, 0]]])
    assert np.array_equal(splits.train.labels, whole.labels[splits.train_index])
    assert np.shares_memory(splits.train.images, whole.images)
    assert splits.note is None


def test_without_a_fraction_everything_is_trained_on():
    splits = load_splits(DataSpec(name="synthetic", image_size=8, val_fraction=0.0))
    assert splits.val is None
    assert len(splits.train) == 512
    assert np.array_equal(splits.train_index, np.arange(512))


def test_the_fingerprint_follows_the_split_and_the_data():
    def fingerprint(**changes):
        return load_splits(DataSpec(**{"name": "synthetic", "image_size": 8, **changes})).fingerprint

    same = [fingerprint(), fingerprint(), fingerprint(test_limit=10)]
    changes = {"split_seed": 1, "val_fraction": 0.2, "limit": 100, "image_size": 9}
    others = [fingerprint(**{key: value}) for key, value in changes.items()]
    assert len(set(same)) == 1
    assert len({*same, *others}) == 5


def test_a_val_folder_is_used_and_the_fraction_reported_as_ignored(tmp_path):
    root = write_folder(tmp_path / "pets", splits=("train", "val", "test"))
    splits = load_splits(DataSpec(name="folder", root=root, image_size=8, val_fraction=0.25))
    assert (len(splits.train), len(splits.val)) == (8, 8)
    assert splits.val.files[0] == "val/cat/0.png"
    assert "val_fraction 0.25 is ignored" in splits.note
    assert load_splits(DataSpec(name="folder", root=root, image_size=8, val_fraction=0.0)).note is None


def test_nothing_to_spare_for_validation_is_told(tmp_path):
    root = write_folder(tmp_path / "pets", per_class=1)
    splits = load_splits(DataSpec(name="folder", root=root, image_size=8))
    assert splits.val is None
    assert len(splits.train) == 2
    assert "no validation split" in splits.note


def test_skipped_and_ignored_files_are_told(tmp_path):
    root = write_folder(tmp_path / "pets")
    (tmp_path / "pets/train/cat/broken.png").write_bytes(b"nothing")
    (tmp_path / "pets/train/cat/notes.txt").write_text("cats")
    splits = load_splits(DataSpec(name="folder", root=root, image_size=8, skip_bad=True))
    assert (
        splits.note
        == "skipped 1 unreadable image\nignored 1 file or folder not named like a PNG, JPEG, WebP, BMP, GIF or TIFF"
    )


def test_a_class_with_one_image_keeps_it_and_that_is_told(tmp_path):
    root = write_folder(tmp_path / "data", per_class=6)
    for i in range(1, 6):
        (tmp_path / "data" / "train" / "dog" / f"{i}.png").unlink()
    splits = load_splits(DataSpec(name="folder", root=root, image_size=8, val_fraction=0.3))
    assert np.bincount(splits.train.labels).tolist() == [4, 1]
    assert "validation has no image of dog" in str(splits.note)
    assert "validation has no image" not in str(load_splits(DataSpec(name="synthetic", image_size=8)).note)
