"""The schema for people and for tools."""

from __future__ import annotations

import json

from distill.recipe import SchemaKey, describe_schema, parse_recipe, recipe_schema
from distill.recipe.optimization import SGD
from distill.recipe.schema import Recipe, TrainSpec


def rows(path: str) -> list[SchemaKey]:
    return [row for row in describe_schema() if row.path == path]


def test_every_section_and_every_plain_key_has_a_row() -> None:
    paths = {row.path for row in describe_schema()}
    assert set(Recipe.model_fields) <= paths
    assert {f"train.{name}" for name in TrainSpec.model_fields} <= paths
    assert {f"optim.{name}" for name in SGD.model_fields} <= paths
    assert {"model.normalize.mean", "augment.erase.size", "train.early_stopping.patience", "optim.lookahead.k"} <= paths


def test_every_key_of_a_real_recipe_has_a_row(student: str) -> None:
    paths = {row.path for row in describe_schema()}
    tree = parse_recipe(student, source="x").model_dump(mode="json")
    for section, value in tree.items():
        assert {f"{section}.{key}" for key in value} <= paths if isinstance(value, dict) else section in paths


def test_rows_say_type_default_and_purpose() -> None:
    assert rows("train.epochs") == [SchemaKey("train.epochs", "a whole number from 1 to 100,000", "200", "")]
    (clip,) = rows("train.clip_norm")
    assert (clip.type, clip.default) == ("a number above 0 or null", "null")
    (role,) = rows("role")
    assert (role.type, role.default) == ("teacher, student or baseline", "required")
    (batch,) = rows("train.batch_size")
    assert batch.description == "over all devices"


def test_variants_share_a_row_where_they_agree() -> None:
    by_variant = {variant: row.default for row in rows("optim.lr") for variant in row.variants}
    assert by_variant["sgd"] == "0.1"
    assert by_variant["adam"] == by_variant["adamw"] == "0.001"
    assert len(by_variant) == 9
    assert [row.variants for row in rows("optim.nesterov")] == [("sgd",)]
    assert [row.variants for row in rows("optim.layer_decay")] == [()]
    (name,) = rows("optim.name")
    assert (name.default, name.variants) == ("sgd", ())
    (source,) = rows("model.source")
    assert source.default == "required"


def test_rows_are_unique() -> None:
    described = describe_schema()
    assert len(described) == len(set(described))


def test_the_json_schema_is_json() -> None:
    schema = json.loads(json.dumps(recipe_schema(), allow_nan=False))
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert set(schema["properties"]) == set(Recipe.model_fields)
    schema["properties"].clear()
    assert recipe_schema()["properties"], "callers get a copy of their own"
