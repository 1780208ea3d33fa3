"""A recipe's ``model:`` section becomes an ``nn.Module``."""

from __future__ import annotations

import contextlib
import functools
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from distill.code import find_code
from distill.data.streams import derive_seed
from distill.models.mistakes import as_user_errors
from distill.models.own import build_own
from distill.models.reuse import reuse_head
from distill.models.timm_folder import resolve_timm
from distill.models.weights import load_weights, without_weights
from distill.models.widths import set_widths
from distill.recipe import Recipe
from distill.recipe.model_specs import ModelSpec, PythonModel, TimmModel
from students import STUDENTS
from teachers import TEACHERS

__all__ = ["build_model", "count_params", "initial_seed", "meta_model", "params_of"]

_NOT_OPTIONS = {"source", "name", "normalize", "max_params", "weights", "widths", "reuse"}


def build_model(spec: ModelSpec, *, num_classes: int, seed: int = 0) -> nn.Module:
    """Build the network on the CPU, with initial weights drawn from ``seed`` alone.

    The global random state is neither read nor moved. Pretrained weights are timm's, cached by huggingface_hub; of a
    ``.safetensors`` file everything but the classifier must fit, and the classifier is kept where it fits too.

    Raises:
        UsageError: No such network, or options that do not go together.
        MissingError: Pretrained weights, or the file, are not there and cannot be fetched.
        DataError: A weights file that is damaged or belongs to another network.
    """
    spec = resolve_timm(spec)
    weights = spec.weights if isinstance(spec, TimmModel) else "none"  # a network of one's own loads its weights itself
    with torch.random.fork_rng(devices=[]), _other_generators(seed):
        # not torch.manual_seed: that would seed every accelerator's generator as well
        torch.default_generator.manual_seed(seed)
        module = _build(spec, num_classes, pretrained=weights == "pretrained")
    if isinstance(spec, TimmModel) and weights not in ("none", "pretrained"):
        load_weights(module, weights, spec)
    return module


def initial_seed(recipe: Recipe) -> int:
    """What a run's initial weights are drawn from.

    A student of its teacher's own network would begin with its teacher's initial weights; a student that learns from
    labels alone, whatever its role, begins with those of the one that is taught.
    """
    return derive_seed(recipe.train.seed, "init/teacher" if recipe.role == "teacher" else "init")


@contextlib.contextmanager
def _other_generators(seed: int) -> Iterator[None]:
    """Python's and NumPy's global random numbers from a seed, for constructors that draw weights with them."""
    before = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


def _build(spec: ModelSpec, num_classes: int, *, pretrained: bool) -> nn.Module:
    own = build_own(spec, num_classes) if isinstance(spec, PythonModel) else None
    with as_user_errors(spec):
        module = _known(spec, num_classes, pretrained=pretrained) if own is None else own
        if spec.reuse is not None:
            reuse_head(module, spec.reuse, num_classes=num_classes)
        set_widths(module, spec.widths)
        return module


def _known(spec: ModelSpec, num_classes: int, *, pretrained: bool) -> nn.Module:
    options = spec.model_dump(exclude=_NOT_OPTIONS)
    if isinstance(spec, TimmModel):
        return TEACHERS["timm"](num_classes=num_classes, name=spec.name, pretrained=pretrained, **options)
    builders = TEACHERS if spec.source == "teachers" else STUDENTS
    return builders[spec.name](num_classes=num_classes, **options)


def count_params(module: nn.Module) -> int:
    """The number of parameters, shared ones once."""
    return sum(p.numel() for p in module.parameters())


def params_of(spec: ModelSpec, num_classes: int) -> int:
    """The number of parameters the network would have; nothing is allocated, no weights are fetched.

    Raises:
        UsageError: No such network, or options that do not go together.
    """
    return count_params(meta_model(spec, num_classes))


def meta_model(spec: ModelSpec, num_classes: int) -> nn.Module:
    """The network on the meta device: its layers and their shapes; nothing is allocated, no weights are fetched.

    Kept and shared, since a command asks for the same one several times: to look at, in evaluation mode.

    Raises:
        UsageError: No such network, or options that do not go together.
    """
    spec = resolve_timm(spec)
    if isinstance(spec, PythonModel):
        return _own_outline(spec.model_copy(update={"weights": "none"}), num_classes)
    shapes_alone = {"normalize": "auto", "max_params": None}
    return _outline(without_weights(spec).model_copy(update=shapes_alone), num_classes)


@functools.lru_cache(maxsize=8)
def _outline(spec: ModelSpec, num_classes: int) -> nn.Module:
    with torch.device("meta"):
        return _build(spec, num_classes, pretrained=False).eval()


_own_outlines: dict[tuple[str, int], tuple[object, nn.Module]] = {}


def _own_outline(spec: PythonModel, num_classes: int) -> nn.Module:
    """Kept with the object that made it: in a notebook another one takes its name. A module's layers may change."""
    maker = find_code(spec.name, key="model.name")
    key = (spec.model_dump_json(exclude={"normalize", "max_params"}), num_classes)
    if key in _own_outlines and _own_outlines[key][0] is maker:
        return _own_outlines[key][1]
    with torch.random.fork_rng(devices=[]):  # built first: strangers' code need not know the meta device
        module = _build(spec, num_classes, pretrained=False).eval().to("meta")
    if not isinstance(maker, nn.Module):
        _own_outlines.clear()  # a command looks at one, or at two
        _own_outlines[key] = (maker, module)
    return module
