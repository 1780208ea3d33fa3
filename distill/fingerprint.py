"""Digests of a model: of its weights, whatever the file, device or memory layout, and of what its recipe says of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import torch
from torch import Tensor

from distill.files import json_sha256
from distill.recipe.model_specs import ModelSpec

__all__ = ["architecture_sha256", "state_sha256"]

_NO_ARCHITECTURE = {"normalize", "weights", "max_params"}


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """Hex sha256 over the names, types, shapes and bytes of a state dict, in the order of the names.

    >>> one, two = torch.ones(1), torch.zeros(2)
    >>> state_sha256({"b": two, "a": one}) == state_sha256({"a": one, "b": two})
    True
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu()
        head = [
            name,
            str(tensor.dtype).removeprefix("torch."),
            list(tensor.shape),
        ]  # with it, no two states run together
        digest.update(json.dumps(head).encode() + b"\n")
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def architecture_sha256(spec: ModelSpec) -> str:
    """Hex sha256 of which network a recipe names, and of its options.

    Options at their defaults are left out, so that one that is new in a later version changes no digest.
    """
    chosen = spec.model_dump(mode="json", exclude=_NO_ARCHITECTURE, exclude_defaults=True)
    return json_sha256(chosen | {"source": spec.source, "name": spec.name})
