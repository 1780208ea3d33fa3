"""What tables call the images and the objective of a recipe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from distill.recipe.objectives import ObjectiveSpec
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


@pytest.mark.parametrize(
    ("objective", "title"),
    [
        ({"kind": "supervised"}, "supervised"),
        ({"kind": "kd"}, "kd"),
        ({"kind": "kd", "add": [{"kind": "at", "features": "auto"}, {"kind": "dist"}]}, "kd+at+dist"),
        ({"kind": "kd", "add": [{"kind": "python", "name": "losses.py:cosine"}]}, "kd+python:cosine"),
        ({"kind": "python", "name": "my.losses:Soft.Margin", "add": [{"kind": "sp"}]}, "python:Soft.Margin+sp"),
        ({"kind": "python_labels", "name": r"C:\mine\losses.py:focal"}, "python_labels:focal"),
        ({"kind": "python", "name": "offered_by_a_package"}, "python:offered_by_a_package"),
    ],
)
def test_the_title_of_an_objective(objective: dict[str, object], title: str) -> None:
    assert TypeAdapter(ObjectiveSpec).validate_json(json.dumps(objective)).title == title
