"""CIFAR as an archive of class folders: the folder data set reads the very same images from it."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

from benchmarks import class_folders
from distill.data.datasets import Dataset
from distill.data.images import Split
from distill.data.splits import Splits, load_splits
from distill.recipe.schema import DataSpec

CLASSES = ("bird", "apple", "cat")  # not in alphabetical order


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Split]:
    """Training and test images, which stand where the official ones would."""
    rng = np.random.default_rng(0)
    made = [
        Split(rng.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8), np.arange(n, dtype=np.int64) % 3) for n in (12, 6)
    ]
    grey = (0.5, 0.5, 0.5)
    dataset = Dataset("cifar10", CLASSES, made[0], None, made[1], "f", grey, grey)
    splits = Splits(dataset, made[0], None, made[1], "f", np.arange(12))
    monkeypatch.setattr(class_folders, "load_splits", lambda spec: splits)
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    return made


def test_the_archive_holds_the_same_images(tmp_path: Path, parts: list[Split]) -> None:
    out = tmp_path / "cifar10.tgz"
    assert class_folders.write_archive(DataSpec(name="cifar10"), out) == 18
    first = out.read_bytes()
    class_folders.write_archive(DataSpec(name="cifar10"), out)
    assert out.read_bytes() == first
    assert list(tmp_path.glob(".*")) == []
    read = load_splits(DataSpec(name="folder", root=str(out), image_size=32, val_fraction=0.0)).dataset
    assert set(read.classes) == set(CLASSES)
    for ours, theirs in zip(parts, (read.train, read.test), strict=True):
        found = {
            (image.tobytes(), read.classes[label])
            for image, label in zip(theirs.take(slice(None)), theirs.labels, strict=True)
        }
        wanted = {(image.tobytes(), CLASSES[label]) for image, label in zip(ours.images, ours.labels, strict=True)}
        assert found == wanted


def test_a_few_classes_and_the_first_pictures_of_each(tmp_path: Path, parts: list[Split]) -> None:
    out = tmp_path / "some.tgz"
    assert class_folders.write_archive(DataSpec(name="cifar10"), out, classes=["cat", "bird"], limit=2) == 8
    with tarfile.open(out) as archive:
        names = sorted(archive.getnames())
    assert names == [
        "test/bird/00000.png", "test/bird/00003.png", "test/cat/00002.png", "test/cat/00005.png",
        "train/bird/00000.png", "train/bird/00003.png", "train/cat/00002.png", "train/cat/00005.png",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="cifar10 has no class dog"):
        class_folders.write_archive(DataSpec(name="cifar10"), out, classes=["dog", "cat"])
