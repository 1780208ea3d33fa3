"""Recipes: what a run does, as data. Read, checked, overridden and written here; no torch."""

from distill.recipe.bundled import bundled_recipes, find_recipe
from distill.recipe.describe import SchemaKey, describe_schema
from distill.recipe.dump import compared_settings, dump_recipe, flat_settings, of_any_seed
from distill.recipe.kinds import ObjectiveKind, describe_objective, list_objectives
from distill.recipe.load import check_text, load_recipe, parse_recipe
from distill.recipe.overrides import apply_overrides
from distill.recipe.schema import Recipe
from distill.recipe.shape import SCHEMA_FILE, recipe_schema, schema_text

__all__ = [
    "SCHEMA_FILE",
    "ObjectiveKind",
    "Recipe",
    "SchemaKey",
    "apply_overrides",
    "bundled_recipes",
    "check_text",
    "compared_settings",
    "describe_objective",
    "describe_schema",
    "dump_recipe",
    "find_recipe",
    "flat_settings",
    "list_objectives",
    "load_recipe",
    "of_any_seed",
    "parse_recipe",
    "recipe_schema",
    "schema_text",
]
