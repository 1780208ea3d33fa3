"""What tables call the images of a recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill.recipe.schema import DataSpec


@pytest.mark.parametrize(
    ("data", "title"),
    [
        ({"name": "cifar10", "root": "data"}, "cifar10"),
        ({"name": "folder", "root": "photos/flowers"}, "flowers"),
        ({"name": "folder", "root": "flowers.zip"}, "flowers.zip"),
        ({"name": "python", "code": "mine:images"}, "mine:images"),
        ({"name": "hf", "options": {"path": "someone/flowers"}}, "someone/flowers"),
        ({"name": "hf", "options": {"path": "https://me:word@host/a/flowers.parquet?key=word"}}, "flowers.parquet"),
    ],
)
def test_the_title_of_images(data: dict[str, object], title: str) -> None:
    assert DataSpec.model_validate(data).title == title


def test_a_folder_that_is_where_one_stands_has_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "flowers"
    place.mkdir()
    monkeypatch.chdir(place)
    assert DataSpec(name="folder", root=".").title == "flowers"
