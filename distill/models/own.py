"""Networks of the user's own: a function of a recipe's ``model.name`` makes them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from distill.code import call_code, code_sha256, find_code, offer_code
from distill.errors import UsageError
from distill.models.weights import load_own_weights
from distill.recipe import Recipe
from distill.recipe.model_specs import ModelSpec, PythonModel
from distill.text import first_line

__all__ = ["build_own", "with_code_sha256", "with_network"]

_KEY = "model.name"


def build_own(spec: PythonModel, num_classes: int) -> nn.Module:
    """``make(num_classes=..., **options)``, on the CPU; an ``nn.Module`` that was handed over is copied.

    Raises:
        UsageError: It may not run, it raised, or it made no network.
        MissingError: It is not there.
    """
    make = find_code(spec.name, key=_KEY)
    if isinstance(make, nn.Module):
        return _copied(_given_shapes(make, spec.name), spec.name)
    if not callable(make):
        raise UsageError(f"{_KEY}: {spec.name} is {type(make).__name__}", hint=_WANTED)
    if "num_classes" in spec.options.values:
        raise UsageError("model.options: num_classes comes from the data", hint="leave it out")
    module = call_code(_caller(make), spec.name, _KEY, num_classes=num_classes, **spec.options.values)
    if not isinstance(module, nn.Module):
        raise UsageError(f"{_KEY}: {spec.name} gave {type(module).__name__}, no torch.nn.Module", hint=_WANTED)
    _given_shapes(module, spec.name)
    if spec.weights != "none":
        load_own_weights(module, spec.weights, prefix=spec.weights_prefix, name=spec.name)
    return module


def _copied(module: nn.Module, name: str) -> nn.Module:
    try:
        return copy.deepcopy(module)
    except Exception as error:  # it holds a lock, a file, or a tensor with a gradient
        raise UsageError(
            f"{_KEY}: {name} cannot be copied: {first_line(error)}",
            hint="hand over its class, or a function that makes it, in the place of the module",
        ) from error


def _given_shapes(module: nn.Module, name: str) -> nn.Module:
    """The network, unless a lazy layer of it has no shape yet: it has no weights to count, to save or to copy."""
    for key, each in (*module.named_parameters(), *module.named_buffers()):
        if is_lazy(each):
            raise UsageError(
                f"{_KEY}: {name} has a lazy layer that was given no image: {key} has no shape yet",
                hint="pass one through at the end of its constructor, as in self(torch.zeros(2, 3, 32, 32))",
            )
    return module


_WANTED = "a function that takes num_classes and the recipe's model.options, and returns the network"


def _caller(make: Callable[..., Any]) -> Callable[..., Any]:
    def on_the_cpu(**arguments: Any) -> Any:
        with torch.device("cpu"):
            return make(**arguments)

    return on_the_cpu


def with_network(recipe: Recipe, network: nn.Module | Callable[..., nn.Module] | None) -> Recipe:
    """The recipe with a network that was handed over from Python, in the place of its own; None changes nothing."""
    if network is None:
        return recipe
    if not callable(network):
        raise UsageError(f"network: {type(network).__name__}", hint=_WANTED)
    shared = {key: getattr(recipe.model, key) for key in ("input_size", "normalize", "max_params")}
    model = PythonModel(source="python", name=offer_code(network), **shared)
    return recipe.model_copy(update={"model": model})


def with_code_sha256(spec: ModelSpec) -> ModelSpec:
    """The same network with the digest of the file that makes it, as a run's recipe keeps it."""
    if not isinstance(spec, PythonModel):
        return spec
    digest = code_sha256(spec.name, find_code(spec.name, key=_KEY))
    return spec.model_copy(update={"code_sha256": digest})
