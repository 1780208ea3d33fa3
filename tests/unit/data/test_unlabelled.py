"""``data.unlabelled``: pictures of a folder behind the training images."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from distill.data.splits import load_splits
from distill.errors import DataError, MissingError
from distill.recipe.schema import DataSpec


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def pictures(tmp_path):
    root = tmp_path / "more"
    (root / "deep" / "er").mkdir(parents=True)
    rng = np.random.default_rng(0)
    pixels = {
        name: rng.integers(0, 256, (16, 16, 3), dtype=np.uint8) for name in ("b.png", "deep/a.png", "deep/er/c.png")
    }
    for name, each in pixels.items():
        Image.fromarray(each).save(root / name)
    (root / ".hidden.png").write_bytes(b"")
    (root / "deep" / "notes.txt").write_text("no picture")
    return root, pixels


def spec(root=None, **changes):
    fields = {"name": "synthetic", "image_size": 16, "limit": 24, "val_fraction": 0.25, "test_limit": 4}
    return DataSpec(**fields, unlabelled=None if root is None else str(root), **changes)


def test_they_stand_behind_the_training_images_with_no_label(pictures):
    root, pixels = pictures
    plain, more = load_splits(spec()), load_splits(spec(root), unlabelled=True)
    count = len(plain.train)
    assert np.array_equal(more.train.take(slice(0, count)), plain.train.take(slice(None)))
    behind = more.train.take(slice(count, None)).transpose(0, 2, 3, 1)
    assert np.array_equal(behind, np.stack([pixels[name] for name in sorted(pixels)]))
    assert more.train.labels.tolist() == [*plain.train.labels.tolist(), -1, -1, -1]
    assert np.array_equal(more.labelled.take(slice(None)), plain.train.take(slice(None)))
    assert (more.dataset.mean, more.fingerprint) == (plain.dataset.mean, plain.fingerprint)
    assert more.shown_fingerprint != plain.shown_fingerprint == plain.fingerprint
    assert "3 images" in more.note
    assert "1 other file ignored" in more.note


def test_links_to_folders_are_followed_once_and_circles_end(pictures, tmp_path):
    root, pixels = pictures
    store = tmp_path / "store"
    (store / "far").mkdir(parents=True)
    Image.fromarray(pixels["b.png"]).save(store / "far" / "d.png")
    for link, target in (("linked", store), ("again", store), ("deep/up", root), ("twin", root / "deep")):
        (root / link).symlink_to(target)
    splits = load_splits(spec(root), unlabelled=True)
    assert splits.unlabelled.count == 4
    d, b = splits.train.take(slice(-4, -2))  # again/far/d.png, b.png, and those in deep
    assert np.array_equal(d, b)


def test_who_evaluates_needs_none_of_them(tmp_path):
    splits = load_splits(spec(tmp_path / "gone"))
    assert splits.unlabelled is None


def test_other_pictures_are_other_data_and_the_same_ones_elsewhere_are_not(pictures, tmp_path):
    root, pixels = pictures
    before = load_splits(spec(root), unlabelled=True).shown_fingerprint
    moved = root.rename(tmp_path / "elsewhere")
    assert load_splits(spec(moved), unlabelled=True).shown_fingerprint == before
    Image.fromarray(255 - pixels["b.png"]).save(moved / "b.png")
    assert load_splits(spec(moved), unlabelled=True).shown_fingerprint != before


def test_bad_pictures_are_named_or_skipped(pictures):
    root, _ = pictures
    (root / "deep" / "bad.png").write_bytes(b"no picture at all")
    with pytest.raises(DataError, match=r"1 of 4 images cannot be used: deep/bad\.png"):
        load_splits(spec(root), unlabelled=True)
    splits = load_splits(spec(root, skip_bad=True), unlabelled=True)
    assert splits.unlabelled.count == 3
    assert (splits.train.labels == -1).sum() == 3
    assert "1 unreadable image skipped" in splits.note


def test_a_folder_that_is_not_there_or_holds_no_picture_is_refused(tmp_path):
    with pytest.raises(MissingError, match="no such folder"):
        load_splits(spec(tmp_path / "gone"), unlabelled=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no PNG"):
        load_splits(spec(tmp_path / "empty"), unlabelled=True)
