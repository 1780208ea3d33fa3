"""A digest of a model's weights that does not depend on a file format, a device, or a memory layout."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["state_sha256"]


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
