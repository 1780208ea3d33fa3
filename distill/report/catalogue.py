"""The networks that recipes name, with exact parameters and multiply-accumulates; no weights, no data."""

from __future__ import annotations

from pathlib import Path

from distill.data.datasets import num_classes
from distill.errors import DistillError
from distill.recipe import Recipe, bundled_recipes, load_recipe
from distill.report.counts import Counts, counts_of
from distill.results.rows import ModelRow, ModelSummary

__all__ = ["describe_model", "list_models"]

_USUAL_CLASSES = 10


def list_models() -> tuple[ModelRow, ...]:
    """List the network of every bundled recipe, at the recipe's classes and input size; computed once, then cached.

    Example:
        >>> [model.params for model in list_models() if model.name == "r18_small"]
        [4935242]
    """
    recipes = [load_recipe(path) for path in bundled_recipes().values()]
    counts = counts_of([(recipe.model, _classes(recipe)) for recipe in recipes])
    return tuple(_row(recipe, each) for recipe, each in zip(recipes, counts, strict=True))


def describe_model(recipe: Recipe | str | Path) -> ModelSummary:
    """Describe a recipe's network, layer by layer.

    Args:
        recipe: A recipe, a path, or a bundled name.

    Raises:
        UsageError: No such network, or conflicting options.

    Example:
        >>> summary = describe_model("r18_small")
        >>> summary.model.params, len(summary.stages)
        (4935242, 6)
    """
    from distill.evaluation.cost import spec_cost
    from distill.models.taps import stage_shapes

    recipe = load_recipe(recipe)
    cost = spec_cost(recipe.model, _classes(recipe))
    layers = tuple(layer for layer in cost.layers if layer.output_shape)
    stages = stage_shapes(recipe.model, _classes(recipe))
    return ModelSummary(_row(recipe, Counts(cost.params, cost.macs)), layers, stages)


def _row(recipe: Recipe, counts: Counts) -> ModelRow:
    return ModelRow(
        name=recipe.name,
        role=recipe.role,
        source=f"{recipe.model.source}: {recipe.model.name}",
        params=counts.params,
        gmacs=counts.macs / 1e9,
        input_size=recipe.model.input_size,
        num_classes=_classes(recipe),
    )


def _classes(recipe: Recipe) -> int:
    try:
        return num_classes(recipe.data)
    except DistillError:  # they would be counted in a folder that is not here
        return _USUAL_CLASSES
