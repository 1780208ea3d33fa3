"""What an editor sees: recipes read by another YAML 1.2 reader, checked by another JSON Schema validator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
import yamlcore

from distill.recipe import SCHEMA_FILE, bundled_recipes, dump_recipe, load_recipe, recipe_schema, schema_text

RECIPES = bundled_recipes()
VALIDATOR = jsonschema.Draft202012Validator(recipe_schema())


def _read(text: str) -> Any:
    return yaml.load(text, Loader=yamlcore.CoreLoader)


def _problems(document: Any) -> list[str]:
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in VALIDATOR.iter_errors(document)]


def test_there_are_recipes_to_read() -> None:
    assert len(RECIPES) >= 40


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_fits_the_schema_in_both_readers(name: str) -> None:
    text = RECIPES[name].read_text(encoding="utf-8")
    assert _problems(_read(text)) == []
    resolved = _read(dump_recipe(load_recipe(name)))
    assert _problems(resolved) == []
    assert resolved == load_recipe(name).model_dump(mode="json", exclude={"search"})


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_names_the_schema_beside_it(name: str) -> None:
    assert f"# yaml-language-server: $schema={SCHEMA_FILE}\n" in RECIPES[name].read_text(encoding="utf-8")


def test_the_schema_beside_the_recipes_is_todays() -> None:
    beside = Path(next(iter(RECIPES.values()))).parent / SCHEMA_FILE
    hint = f"distill recipe schema --json > recipes/{SCHEMA_FILE}"
    assert beside.read_text(encoding="utf-8") == schema_text(), hint


@pytest.mark.parametrize(
    ("old", "new"),
    [("epochs: 200", "epochs: '200'"), ("kind: kd", "kind: kdd"), ("lr: 0.1", "lrr: 0.1"), ("5000000", "5_000_000")],
)
def test_the_schema_finds_mistakes(old: str, new: str) -> None:
    text = RECIPES["r18_small"].read_text(encoding="utf-8")
    assert old in text
    assert _problems(_read(text.replace(old, new)))
