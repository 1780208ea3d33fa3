"""CIFAR as an archive of class folders: the folder data set reads the very same images from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import class_folders
from distill.data.datasets import Dataset
from distill.data.images import Split
from distill.data.splits import Splits, load_splits
from distill.recipe.schema import DataSpec


def test_the_archive_holds_the_same_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    classes = ("bird", "apple", "cat")  # not in alphabetical order
    parts = [
        Split(rng.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8), np.arange(n, dtype=np.int64) % 3) for n in (12, 6)
    ]
    grey = (0.5, 0.5, 0.5)
    dataset = Dataset("cifar10", classes, parts[0], None, parts[1], "f", grey, grey)
    splits = Splits(dataset, parts[0], None, parts[1], "f", np.arange(12))
    monkeypatch.setattr(class_folders, "load_splits", lambda spec: splits)
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "cifar10.tgz"
    assert class_folders.write_archive(DataSpec(name="cifar10"), out) == 18
    first = out.read_bytes()
    class_folders.write_archive(DataSpec(name="cifar10"), out)
    assert out.read_bytes() == first
    assert list(tmp_path.glob(".*")) == []
    read = load_splits(DataSpec(name="folder", root=str(out), image_size=32, val_fraction=0.0)).dataset
    assert set(read.classes) == set(classes)
    for ours, theirs in zip(parts, (read.train, read.test), strict=True):
        found = {
            (image.tobytes(), read.classes[label])
            for image, label in zip(theirs.take(slice(None)), theirs.labels, strict=True)
        }
        wanted = {(image.tobytes(), classes[label]) for image, label in zip(ours.images, ours.labels, strict=True)}
        assert found == wanted
