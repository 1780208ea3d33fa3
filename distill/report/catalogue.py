"""The networks that recipes name, with exact parameters and multiply-accumulates; no weights, no data."""

from __future__ import annotations

from distill.data.datasets import num_classes
from distill.errors import DistillError
from distill.evaluate.cost import spec_cost
from distill.recipe import Recipe, bundled_recipes, load_recipe
from distill.report.rows import LayerRow, ModelRow, ModelSummary

__all__ = ["describe_model", "list_models"]

_USUAL_CLASSES = 10


def list_models() -> tuple[ModelRow, ...]:
    """The network of every bundled recipe, for the recipe's classes and input size."""
    return tuple(describe_model(load_recipe(path)).model for path in bundled_recipes().values())


def describe_model(recipe: Recipe) -> ModelSummary:
    """A recipe's network, layer by layer.

    Raises:
        UsageError: No such network, or options that do not go together.
    """
    classes = _classes(recipe)
    cost = spec_cost(recipe.model, classes)
    model = ModelRow(
        name=recipe.name,
        role=recipe.role,
        source=f"{recipe.model.source}: {recipe.model.name}",
        params=cost.params,
        gmacs=cost.macs / 1e9,
        input_size=recipe.model.input_size,
        num_classes=classes,
    )
    layers = (
        LayerRow(layer.name, layer.kind, layer.output_shape, layer.params, layer.macs)
        for layer in cost.layers
        if layer.output_shape
    )
    return ModelSummary(model, tuple(layers))


def _classes(recipe: Recipe) -> int:
    try:
        return num_classes(recipe.data)
    except DistillError:  # they would be counted in a folder that is not here
        return _USUAL_CLASSES
