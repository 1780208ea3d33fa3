"""Pictures that are trained on and judge, too."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.data import twins
from distill.data.own import offer_data
from distill.data.splits import Splits, load_splits
from distill.errors import DataError
from distill.recipe.schema import DataSpec


def _picture(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(12):
        _picture(tmp_path / "pets" / "train" / ("cat", "dog")[number % 2] / f"{number}.png", number)
    for number in range(4):
        _picture(tmp_path / "pets" / "test" / ("cat", "dog")[number % 2] / f"new{number}.png", 100 + number)
    return tmp_path / "pets"


def _load(root: Path, decoded: str = "auto", **settings: float) -> Splits:
    spec = {"name": "folder", "root": str(root), "image_size": 8, "val_fraction": 0.0, "decoded": decoded} | settings
    return load_splits(DataSpec(**spec))


@pytest.mark.parametrize("decoded", ["auto", "per_batch"])
def test_test_images_that_are_trained_on_are_counted_with_one_of_them_named(root: Path, decoded: str) -> None:
    assert _load(root, decoded).leaks == ()
    shutil.copy(root / "train/cat/4.png", root / "test/cat/copied.png")
    shutil.copy(root / "train/cat/6.png", root / "test/dog/another.png")
    (line,) = _load(root, decoded).leaks
    assert line == (
        "2 of the 6 test images are trained on, too (test/cat/copied.png is the same picture as train/cat/4.png): "
        "on other pictures expect less; 1 with another label"
    )
    (root / "train/cat/0.png").write_bytes(b"no picture")  # rows behind a bad one keep their places
    assert _load(root, decoded, skip_bad=True).leaks == (line,)
    few = _load(root, decoded, skip_bad=True, limit=4)
    trained = {image.tobytes() for image in few.train.take(slice(None))}
    count = sum(image.tobytes() in trained for image in few.test.take(slice(None)))
    assert [each.partition(" ")[0] for each in few.leaks] == [str(count)] * (count > 0)


def test_what_is_carved_may_part_two_of_a_kind(root: Path) -> None:
    shutil.rmtree(root / "test")
    for path in sorted((root / "train").glob("*/*.png")):
        shutil.copy(path, path.with_name(f"copy_{path.name}"))
    splits = _load(root, test_fraction=0.25, val_fraction=0.25)
    pixels = {
        name: [image.tobytes() for image in part.take(slice(None))]
        for name, part in (("train", splits.train), ("validation", splits.val), ("test", splits.test))
        if part is not None
    }
    for name in ("test", "validation"):
        count = sum(image in pixels["train"] for image in pixels[name])
        assert count > 0
        assert any(line.startswith(f"{count} of the {len(pixels[name])} {name} images") for line in splits.leaks)


def test_those_of_several_splits_come_first_and_a_count_that_was_cut_says_so(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twins, "_MOST", 2)
    digests = {"train": {0: b"a", 1: b"a", 3: b"b", 4: b"c"}, "test": {0: b"c", 7: b"b", 8: b"b"}}
    found = twins.find_twins(digests)
    assert found == [[("train", 3), ("test", 8)], [("train", 4), ("test", 0)]]
    splits = _load(root)
    (line,) = twins.leaks(
        [[("train", 0), ("test", 0)]] * 2, {"training": ("train", splits.train), "test": ("test", splits.test)}
    )
    assert line.startswith("at least 2 of the 4 test images")


def test_labels_out_of_a_table_are_names_and_a_list_of_two_arrays_is_a_pair() -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    names = np.array(["cat", "dog", "eel"] * 2, dtype=object)
    spec = DataSpec(name="python", code=offer_data([images, names]), image_size=8)
    assert load_splits(spec).dataset.classes == ("cat", "dog", "eel")
    with pytest.raises(DataError, match="one whole number or name for each image") as caught:
        offer_data((images, np.array([0.0, 1.0, 0.5] * 2)))
    assert "astype(int)" in str(caught.value.hint)
    for missing in (float("nan"), None, True):  # no class of that name
        with pytest.raises(DataError, match="one whole number or name for each image"):
            offer_data((images, np.array(["cat", "dog", missing] * 2, dtype=object)))


def test_arrays_that_are_handed_over_are_looked_at_too() -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(8) % 2
    given = {"train": (images, labels), "test": (images[:3], labels[:3])}
    spec = DataSpec(name="python", code=offer_data(given), image_size=8, val_fraction=0.0)
    (line,) = load_splits(spec).leaks
    assert line.startswith("3 of the 3 test images are trained on, too (test 0 is the same picture as train 0)")
