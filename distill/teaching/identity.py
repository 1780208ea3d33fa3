"""Who a teacher is: all that decides its answers. Its run's folder states it; no network is built to know it.

A run writes ``identity.json`` when it has finished; where that is missing it is computed once.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch

from distill.errors import DistillError
from distill.files import json_sha256, read_json, write_json
from distill.fingerprint import architecture_sha256, state_sha256
from distill.models import Normalize, build_normalize
from distill.models.trained import Trained, asked_precision, shipped_checkpoint
from distill.recipe import Recipe
from distill.runs import RunFolder
from distill.runs.checkpoints import MODEL_FILE, best_checkpoint
from distill.runs.checkpoints.folder import read_tree
from distill.runs.journal import is_number

__all__ = ["Identity", "Statement", "identity_of", "read_identity", "read_statement", "write_identity"]

_FILE = "identity.json"


@dataclass(frozen=True)
class Identity:
    """What decides a teacher's answers to pixels.

    Attributes:
        weights: sha256 of its weights and buffers.
        architecture: sha256 of what its recipe says of the network: the same tensors in another answer otherwise.
        mean: Of its normalisation, by channel.
        std: The same.
        input_size: Side in pixels that images are resized to.
        precision: Of its forward pass: ``fp32``, ``bf16`` or ``fp16``.
        classes: Names, in the order of its logits.
    """

    weights: str
    architecture: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_size: int
    precision: str
    classes: tuple[str, ...]

    def differences(self, other: Identity) -> list[str]:
        """The names of the parts that differ."""
        return [item.name for item in fields(self) if getattr(self, item.name) != getattr(other, item.name)]

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> Identity:
        """Read what ``asdict`` gave and JSON kept.

        Raises:
            TypeError, ValueError, KeyError: It is none.
        """
        identity = cls(**(tree | {name: tuple(tree[name]) for name in ("mean", "std", "classes")}))
        texts = (identity.weights, identity.architecture, identity.precision, *identity.classes)
        numbers = (*identity.mean, *identity.std, identity.input_size)
        if not (identity.classes and all(isinstance(text, str) for text in texts) and all(map(is_number, numbers))):
            raise ValueError("the identity of its teacher makes no sense")
        return identity


@dataclass(frozen=True)
class Statement:
    """What a run's folder states of the network that it ships.

    Attributes:
        identity: As it was trained; another device may ask it in another precision.
        largest_logit: The largest absolute logit it was seen to answer; None where nobody has looked yet.
    """

    identity: Identity
    largest_logit: float | None = None


def identity_of(trained: Trained) -> Identity:
    """Of a network that is loaded."""
    return _identity(trained.recipe, trained.classes, trained.sha256, trained.normalize, trained.precision)


def read_identity(run: RunFolder, *, device: torch.device, precision: str = "auto") -> Identity:
    """Of a run that would be asked on ``device``, in ``precision`` (``auto``: as :func:`asked_precision` has it).

    The weights are as the folder states them, all else is as recipe.yaml and run.json say today: that is what would be
    built. Where nothing is stated, the weights are read, and the statement is written.

    Raises:
        RunError: The run has no whole checkpoint, or its recipe is damaged.
        UsageError: The device has no such precision.
    """
    statement = read_statement(run) or write_identity(run)
    return _of_folder(run, statement.identity.weights, asked_precision(run.recipe(), device, precision))


def _of_folder(run: RunFolder, weights: str, precision: str) -> Identity:
    recipe = run.recipe()
    normalize = build_normalize(recipe.model, mean=(0.0,) * 3, std=(1.0,) * 3)  # spelled out in a run's recipe
    return _identity(recipe, run.classes, weights, normalize, precision)


def _identity(recipe: Recipe, classes: tuple[str, ...], weights: str, normalize: Normalize, precision: str) -> Identity:
    return Identity(
        weights=weights,
        architecture=architecture_sha256(recipe.model),
        mean=normalize.mean,
        std=normalize.std,
        input_size=normalize.input_size,
        precision=precision,
        classes=classes,
    )


# The file


def read_statement(run: RunFolder) -> Statement | None:
    """What the run's folder states; None where it states nothing, or nothing of the checkpoint that it ships now.

    Raises:
        RunError: The run has no checkpoint, or the description of that is damaged.
    """
    model = _shipped_sha256(run)
    try:
        tree = read_json(run.path / _FILE)
        if tree.pop("sha256", None) != json_sha256(tree) or tree["model"] != model:
            return None
        largest = tree["largest_logit"]
        if largest is not None and not is_number(largest):
            return None
        return Statement(Identity.from_json(tree["identity"]), largest)
    except (DistillError, KeyError, TypeError, ValueError):
        return None


def write_identity(run: RunFolder, *, weights: str | None = None, largest_logit: float | None = None) -> Statement:
    """State who the run's network is, bound to the checkpoint that it ships.

    Where the folder cannot be written (somebody else's, a disk that is read-only), nothing is, and that is no error.

    Args:
        weights: Their sha256, where it is known; else they are read.

    Raises:
        RunError: The run has no whole checkpoint, or its recipe is damaged.
    """
    if weights is None:
        weights = state_sha256(shipped_checkpoint(run).model_state)
    statement = Statement(_of_folder(run, weights, run.recipe().train.precision), largest_logit)
    tree = {"model": _shipped_sha256(run)} | asdict(statement)
    with suppress(DistillError):
        write_json(run.path / _FILE, tree | {"sha256": json_sha256(tree)})
    return statement


def _shipped_sha256(run: RunFolder) -> str:
    """Of the file that the run ships, as its checkpoint's description has it: the file is not read."""
    return read_tree(best_checkpoint(run.checkpoints))["sha256"][MODEL_FILE]
