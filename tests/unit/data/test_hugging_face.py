"""Image sets of Hugging Face's ``datasets``: as the library gives them, or one line; skipped where it is absent."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from distill.data.datasets import load_dataset, num_classes
from distill.errors import DataError, MissingError, RecipeError, UsageError
from distill.recipe import parse_recipe
from distill.recipe.schema import DataSpec

pytestmark = pytest.mark.filterwarnings("ignore")  # of datasets' own parts, whatever version

RECIPE = """
schema_version: 1
name: small
role: baseline
data: {{name: hf, root: {root}, image_size: 8{more}}}
model: {{source: students, name: tiny}}
"""


def spec(root: Path | str, **options: Any) -> DataSpec:
    more = f", options: {{{', '.join(f'{name}: {value}' for name, value in options.items())}}}" if options else ""
    return parse_recipe(RECIPE.format(root=root, more=more), source="test").data


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return pytest.importorskip("datasets")


Saved = Callable[..., tuple[Path, dict[str, np.ndarray]]]


@pytest.fixture
def saved(datasets: Any, tmp_path: Path) -> Saved:
    """Writes a set of random 8-pixel images below the test's folder; its place, and the pixels of each split."""

    def write(*splits: str, image: str = "image", label: str = "label", names: tuple[str, ...] = ("cat", "dog")) -> Any:
        random, parts, pixels = np.random.default_rng(0), {}, {}
        features = datasets.Features({image: datasets.Image(), label: datasets.ClassLabel(names=list(names))})
        for split in splits:
            pixels[split] = random.integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)
            rows = {image: [Image.fromarray(each) for each in pixels[split]], label: [0, 1] * 5}
            parts[split] = datasets.Dataset.from_dict(rows, features=features)
        datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "set"))
        return tmp_path / "set", pixels

    return write


def test_every_split_has_the_pixels_labels_and_names_that_were_saved(saved: Saved) -> None:
    place, pixels = saved("train", "validation", "test")
    found = load_dataset(spec(place))
    assert found.classes == ("cat", "dog")
    assert num_classes(spec(place)) == 2
    for name, split in (("train", found.train), ("validation", found.val), ("test", found.test)):
        assert split is not None
        np.testing.assert_array_equal(split.take(slice(None)), pixels[name].transpose(0, 3, 1, 2))
        assert split.labels.tolist() == [0, 1] * 5


def test_without_test_images_some_are_set_aside(saved: Saved) -> None:
    place, _ = saved("train")
    found = load_dataset(spec(place))
    assert (len(found.train), len(found.test)) == (8, 2)
    assert "has no test images: 2 of 10 images are set aside" in str(found.note)


def test_columns_and_splits_may_be_named(saved: Saved) -> None:
    place, pixels = saved("fold_a", "fold_b", image="picture", label="kind")
    with pytest.raises(DataError, match=r"no split 'train': fold_a, fold_b"):
        load_dataset(spec(place))
    found = load_dataset(spec(place, train="fold_b", test="fold_a", image="picture", label="kind"))
    np.testing.assert_array_equal(found.train.take(slice(None)), pixels["fold_b"].transpose(0, 3, 1, 2))
    with pytest.raises(DataError, match=r"no column 'nothing': picture \(Image\), kind \(ClassLabel\)"):
        load_dataset(spec(place, train="fold_b", test="fold_a", image="nothing"))


def test_a_split_that_is_named_for_one_purpose_serves_no_other(saved: Saved) -> None:
    """Where test images have no labels, validation is what is tested on: no epoch may be chosen by it."""
    place, pixels = saved("train", "validation")
    found = load_dataset(spec(place, test="validation"))
    assert found.val is None
    np.testing.assert_array_equal(found.test.take(slice(None)), pixels["validation"].transpose(0, 3, 1, 2))
    with pytest.raises(DataError, match="no split 'train' beside the one that is asked for by that name: train, val"):
        load_dataset(spec(place, test="train"))


def test_other_images_are_not_those_that_were_decoded_before(saved: Saved, datasets: Any, tmp_path: Path) -> None:
    place, _ = saved("train", "test")
    before = load_dataset(spec(place)).fingerprint
    again = datasets.load_from_disk(str(place))
    flipped = again.map(lambda row: {"label": 1 - row["label"]}, load_from_cache_file=False)
    flipped.save_to_disk(str(tmp_path / "other"))
    assert load_dataset(spec(place)).fingerprint == before
    assert load_dataset(spec(tmp_path / "other")).fingerprint != before


def test_a_folder_of_pictures_is_read_as_the_library_reads_it(datasets: Any, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("ant", "bee"):
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            for number in range(3):
                Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    found = load_dataset(spec(tmp_path / "pictures"))
    assert (found.classes, len(found.train), len(found.test)) == (("ant", "bee"), 6, 6)


def test_what_is_nowhere_is_one_line(datasets: Any, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="is neither a folder here nor to be had from the hub"):
        load_dataset(spec(tmp_path, path="somebody/nothing"))


def test_a_folder_that_holds_nothing_is_called_one(datasets: Any, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"holds no data set: .* doesn't contain any data files"):
        load_dataset(spec(tmp_path))


def test_a_damaged_file_is_one_line(datasets: Any, tmp_path: Path) -> None:
    (tmp_path / "dataset_dict.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        load_dataset(spec(tmp_path))


def test_labels_that_are_none_are_listed(datasets: Any, tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    images = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in range(4)]
    part = datasets.Dataset.from_dict({"image": images, "label": [0, 1, -1, 0]}, features=features)
    datasets.DatasetDict({"train": part, "test": part}).save_to_disk(str(tmp_path / "set"))
    with pytest.raises(DataError, match=r"2 of 8 images .*\n  train 2: label -1 of 2 classes"):
        load_dataset(spec(tmp_path / "set"))


@pytest.mark.parametrize("kind", ["bytes and path", "bytes"])
def test_files_in_a_table_of_another_program_are_pictures(datasets: Any, tmp_path: Path, kind: str) -> None:
    pa, parquet = (pytest.importorskip(name) for name in ("pyarrow", "pyarrow.parquet"))
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    files = []
    for each in pixels:
        file = io.BytesIO()
        Image.fromarray(each).save(file, "PNG")
        files.append(file.getvalue())
    column = files if kind == "bytes" else [{"bytes": file, "path": None} for file in files]
    for split in ("train", "test"):
        parquet.write_table(pa.table({"image": column, "label": ["ant", "bee"] * 3}), tmp_path / f"{split}.parquet")
    found = load_dataset(spec(tmp_path))
    np.testing.assert_array_equal(found.train.take(slice(None)), pixels.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("kind", "labels"),
    [
        ("float64", [0.0, float("nan")]),
        ("date32", [date(2026, 1, 1), date(2026, 1, 2)]),
        ("list", [[0, 1], [1]]),
        ("mapping", [{"at": 0}, {"at": 1}]),
    ],
)
def test_labels_of_another_kind_are_one_line(datasets: Any, tmp_path: Path, kind: str, labels: list[Any]) -> None:
    number = datasets.Value("int64")
    feature = {"list": [number], "mapping": {"at": number}}.get(kind) or datasets.Value(kind)
    rows = {"image": [Image.new("RGB", (8, 8))] * 2, "label": labels}
    features = datasets.Features({"image": datasets.Image(), "label": feature})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "set"))
    with pytest.raises(DataError, match=r"its labels, label \(.+\), are neither whole numbers nor names") as told:
        load_dataset(spec(tmp_path / "set"))
    assert told.value.hint == "name another column: --set data.options.label=COLUMN"


# Without the library


def test_a_folder_that_is_not_there_asks_no_hub(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"there is no .*nowhere"):
        load_dataset(spec(tmp_path / "nowhere"))


def test_without_the_library_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingError) as told:
        load_dataset(spec(tmp_path))
    assert told.value.hint == "pip install datasets"


def test_options_that_run_code_or_mean_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"data\.options: trust_remote_code: not among path"):
        load_dataset(spec(tmp_path, trust_remote_code="true"))


def test_options_are_of_some_data_alone() -> None:
    with pytest.raises(RecipeError, match="options are for name: python and hf"):
        parse_recipe(
            RECIPE.replace("name: hf", "name: digits").format(root="data", more=", options: {a: 1}"), source="test"
        )


class ClassLabel:
    """As the library's: what a number means in one split."""

    def __init__(self, names: list[str]) -> None:
        self.names = names


class Split(list):
    """Rows, and the columns' kinds, as the library's Dataset has them."""

    def __init__(self, kind: Any, labels: list[Any]) -> None:
        super().__init__(
            {"image": Image.new("RGB", (8, 8), (at, 0, 0)), "label": label} for at, label in enumerate(labels)
        )
        self.features = {"image": type("Image", (), {})(), "label": kind}
        self._labels = labels

    def select_columns(self, _names: list[str]) -> Split:
        return self

    def unique(self, _name: str) -> set[Any]:
        return set(self._labels)

    def __getitem__(self, at: Any) -> Any:
        return self._labels if at == "label" else super().__getitem__(at)


def test_splits_that_number_their_classes_otherwise_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without the library: what it gives is stood in for."""
    module = sys.modules["distill.data.hugging_face"]
    parts = {
        "train": Split(ClassLabel(["cat", "dog", "eel"]), [0, 1, 2] * 4),
        "test": Split(ClassLabel(["dog", "eel"]), [0, 1]),
    }
    monkeypatch.setattr(module, "_open", lambda *_: parts)
    with pytest.raises(DataError, match="the classes of test and train differ: dog, eel; cat, dog, eel"):
        load_dataset(spec(tmp_path))
    text = type("Value", (), {})()
    monkeypatch.setattr(
        module, "_open", lambda *_: {"train": Split(text, ["cat", "dog"] * 4), "test": Split(text, ["dog"])}
    )
    found = load_dataset(spec(tmp_path))  # names need no list of their own
    assert (found.classes, found.test.labels.tolist()) == (("cat", "dog"), [1])
