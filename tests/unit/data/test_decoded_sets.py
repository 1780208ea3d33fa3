"""Which decoded images are kept, what they take, and that they go when they are told to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from distill.cli import app
from distill.data.array_cache import arrays_folder
from distill.data.datasets import load_dataset
from distill.data.decoded_sets import list_decoded
from distill.recipe.schema import DataSpec


@pytest.fixture
def decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataSpec:
    """Twelve pictures of two classes, decoded once."""
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    for number in range(12):
        path = tmp_path / "pets" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (20 * number, 0, 0)).save(path)
    spec = DataSpec(name="folder", root=str(tmp_path / "pets"), image_size=16)
    load_dataset(spec)
    return spec


def _images(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["cache", "images", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_they_are_listed_with_where_they_come_from_and_their_size(decoded: DataSpec) -> None:
    (found,) = list_decoded()
    assert (found.source, dict(found.images), found.image_size) == (decoded.root, {"train": 12}, 16)
    files = [path for path in Path(found.folder).iterdir() if path.is_file()]
    assert found.size_mb == sum(path.stat().st_size for path in files) / 1e6 > 12 * 3 * 16 * 16 / 1e6
    exit_code, stdout, _ = _images("--json")
    assert exit_code == 0
    assert json.loads(stdout)[0]["source"] == decoded.root
    (Path(found.folder) / "meta.json").write_text("{")
    assert [each.source for each in list_decoded()] == ["damaged"]


def test_nothing_goes_unasked_and_what_went_is_decoded_again(decoded: DataSpec) -> None:
    before = load_dataset(decoded)
    exit_code, _, stderr = _images("--clear")
    assert (exit_code, "say so with --yes" in stderr) == (2, True)
    assert len(list_decoded()) == 1
    exit_code, _, stderr = _images("--clear", "--yes")
    assert (exit_code, "deleted 1 set," in stderr) == (0, True)
    assert list(arrays_folder().glob("[!.]*")) == []
    assert before.train.take(slice(None)).shape == (12 - len(before.test), 3, 16, 16)  # whoever has it open goes on
    assert "no decoded images in" in _images()[2]
    assert load_dataset(decoded).fingerprint == before.fingerprint
