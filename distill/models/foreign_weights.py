"""Weights that were trained elsewhere: found in a file, and fitted to a network whose tensors are called otherwise."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from distill.errors import DataError, MissingError
from distill.files import regular
from distill.text import counted

__all__ = ["Checkpoint", "ForeignWeights", "MisfitError", "fit_foreign_weights", "fits", "read_checkpoint"]

_COUNTER = "num_batches_tracked"
_AVERAGED = "n_averaged"  # of torch's AveragedModel
_DEEPEST = 3  # of the mappings in a checkpoint: "model", "state_dict", or one in the other
# What training scripts put beside weights, and what is built of it alone: a namespace of options, NumPy's numbers.
_HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *{type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "?")},
    (np._core.multiarray.scalar, "numpy._core.multiarray.scalar"),  # type: ignore[attr-defined]
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),  # type: ignore[attr-defined]
]


class MisfitError(DataError):
    """A checkpoint is of another network."""


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        tree: Dictionaries of tensors, and what else stands beside them.
        is_ordered: Whether tensors stand in the order in which the network has them; safetensors sorts them.
    """

    path: Path
    tree: Any
    is_ordered: bool


@dataclass(frozen=True)
class ForeignWeights:
    """A network's weights, found in a checkpoint.

    Attributes:
        state: By the network's own names, in its dtypes.
        entry: Where in the checkpoint they are, as ``model``; empty for the whole file.
        by_order: Whether names told which tensor is which, or their order did.
        matched: How many tensors of the file these are; batch norm's counters are not looked at.
    """

    state: dict[str, Tensor]
    entry: str
    by_order: bool
    matched: int


def read_checkpoint(path: Path) -> Checkpoint:
    """What a ``.safetensors`` file, or one of ``torch.save``, holds; of the latter nothing is executed.

    Beside tensors and plain values, namespaces of options and NumPy's numbers are read.

    Raises:
        MissingError: There is no such file.
        DataError: It is damaged, or holds objects of other classes.
    """
    try:
        place = regular(path)
        if path.suffix == ".safetensors":
            return Checkpoint(path, load_file(place), is_ordered=False)
        with warnings.catch_warnings(), torch.serialization.safe_globals(_HARMLESS):
            warnings.simplefilter("ignore")  # about foreign formats, which an error follows
            return Checkpoint(path, torch.load(place, map_location="cpu", weights_only=True), is_ordered=True)
    except FileNotFoundError as error:
        raise MissingError(f"no file {path}", hint="paths start at the current folder") from error
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except Exception as error:  # forged bytes bring about any of them
        raise DataError(
            f"{path} is not a checkpoint of tensors: {_reason(error)}",
            hint="where it was trained: torch.save(network.state_dict(), 'weights.pth')",
        ) from error


def _reason(error: Exception) -> str:
    """What the reader refused, in a line: torch's own text is a page of advice."""
    _, refused, rest = str(error).partition("Unsupported global: GLOBAL ")
    return f"it holds an object of {rest.split()[0]}" if refused else "it is damaged, or of another kind"


def fit_foreign_weights(
    module: nn.Module, checkpoint: Checkpoint, *, name: str, entry: str | None = None
) -> ForeignWeights:
    """Find a network's weights in what :func:`read_checkpoint` gave.

    They fit by name, or, where names are others, by order: as many tensors, each of the shape and kind (``weight``,
    ``running_mean``) that the network has at that place. A dense layer's weight is a 1x1 convolution's, too.

    Args:
        name: Of what the network was built by, for messages.
        entry: The mapping that is meant, as ``model`` or ``ema.state_dict``; None: the only one that fits.

    Raises:
        MisfitError: None fits.
        DataError: Several do, or there is none.
    """
    path, found = checkpoint.path, dict(_mappings(checkpoint.tree, _DEEPEST))
    if entry is not None and entry not in found:
        raise DataError(f"{path} has no {entry}", hint=_listing(found))
    if entry is not None:
        found = {entry: found[entry]}
    if not found:
        raise DataError(f"{path} holds no tensors by name", hint="a state_dict() is wanted")
    fitting: dict[str, ForeignWeights] = {}
    reasons: dict[str, str] = {}
    for place, state in found.items():
        fitted = _fitted(module, state, place, is_ordered=checkpoint.is_ordered)
        if isinstance(fitted, str):
            reasons[place] = fitted
        else:
            fitting[place] = fitted
    if not fitting:
        most = max(found, key=lambda place: len(found[place]))
        at = f" ({most})" if most else ""
        hint = "a recipe of the same network is wanted: distill models --json lists what recipes build"
        raise MisfitError(f"{path}{at} does not fit {name}: {reasons[most]}", hint=hint)
    if len(fitting) > 1:
        raise DataError(f"{path} has several that fit {name}: {', '.join(fitting)}", hint="say which: --entry NAME")
    (weights,) = fitting.values()
    if bad := next((key for key, each in weights.state.items() if not each.isfinite().all()), None):
        raise DataError(f"{path}: {bad} holds numbers that are not finite")
    return weights


def fits(module: nn.Module, checkpoint: Checkpoint, *, entry: str | None = None) -> bool:
    """Whether some of a checkpoint's tensors are this network's; it may be an outline, on the meta device."""
    found = dict(_mappings(checkpoint.tree, _DEEPEST))
    meant = found if entry is None else {entry: found[entry]}
    fitted = (_fitted(module, state, place, is_ordered=checkpoint.is_ordered) for place, state in meant.items())
    return any(isinstance(each, ForeignWeights) for each in fitted)


def _listing(found: Mapping[str, object]) -> str:
    return f"it has {', '.join(filter(None, found)) or 'tensors by name, and nothing around them'}"


def _mappings(tree: Any, depth: int, at: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every mapping of names to tensors, by where it is."""
    if not isinstance(tree, Mapping) or depth == 0:
        return
    tensors = {key: value for key, value in tree.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if len(tensors) > 1:  # one alone is a number beside the weights
        yield at, tensors
    for key, value in tree.items():
        if isinstance(key, str):
            yield from _mappings(value, depth - 1, f"{at}.{key}" if at else key)


def _fitted(module: nn.Module, state: dict[str, Tensor], entry: str, *, is_ordered: bool) -> ForeignWeights | str:
    """The weights, or why they do not fit."""
    own = {key: value for key, value in module.state_dict().items() if not key.endswith(_COUNTER)}
    theirs = {key: value for key, value in state.items() if not key.endswith(_COUNTER) and key != _AVERAGED}
    theirs = _without_prefix(theirs, own)
    known = [key for key in own if key in theirs]
    by_order = is_ordered and 2 * len(known) < len(own)
    problem = _misplaced(own, theirs) if by_order else _misnamed(own, theirs)
    if problem is not None:
        return problem
    if unusable := next((key for key, value in theirs.items() if not _is_plain(value)), None):
        return f"{unusable} is no plain tensor of numbers ({theirs[unusable].dtype}, {theirs[unusable].layout})"
    counters = {key: value for key, value in module.state_dict().items() if key.endswith(_COUNTER)}
    pairs = zip(own, theirs, strict=True) if by_order else ((key, key) for key in own)
    cast = {ours: theirs[other].reshape(own[ours].shape).to(own[ours].dtype).contiguous() for ours, other in pairs}
    return ForeignWeights(cast | counters, entry, by_order=by_order, matched=len(cast))


def _misnamed(own: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> str | None:
    """The first name that is missing, unknown or of another shape; None where all fit."""
    if not set(own) & set(theirs):
        first = f"{next(iter(theirs))} instead of {next(iter(own))}"
        return f"no name is the network's ({first}), and a .safetensors file keeps no order; one of torch.save does"
    for key in own:
        if key not in theirs:
            return f"{key} is missing"
        if _sides(own[key]) != _sides(theirs[key]):
            return f"{key} is {tuple(theirs[key].shape)}, not {tuple(own[key].shape)}"
    unknown = next((key for key in theirs if key not in own), None)
    return None if unknown is None else f"{unknown} is unknown"


def _misplaced(own: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> str | None:
    """The first tensor that is another's in its place; None where all fit."""
    for at, (ours, other) in enumerate(zip(own, theirs, strict=False)):
        shapes = tuple(theirs[other].shape), tuple(own[ours].shape)
        if _sides(theirs[other]) != _sides(own[ours]) or _kind(ours) != _kind(other):
            return f"tensor {at + 1} of {len(theirs)} is {other} {shapes[0]}, where the network has {ours} {shapes[1]}"
    if len(own) != len(theirs):
        return f"it has {counted(len(theirs), 'tensor')}, the network {len(own)}"
    return None


def _without_prefix(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without what stands before the network's names (``module.``, ``model.backbone.``), and what stands elsewhere."""
    first = next(iter(own))
    for key in state:
        prefix = key.removesuffix(first)
        if prefix.endswith(".") and key != prefix and 2 * sum(prefix + name in state for name in own) >= len(own):
            return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return state


def _is_plain(tensor: Tensor) -> bool:
    """Whether it is neither sparse, quantised, complex, whole numbers, nor without content."""
    return tensor.layout == torch.strided and tensor.is_floating_point() and not tensor.is_meta


def _sides(tensor: Tensor) -> tuple[int, ...]:
    """Its shape without ones at its end: a 1x1 convolution's is that of a dense layer."""
    shape = tuple(tensor.shape)
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _kind(name: str) -> str:
    return name.rpartition(".")[2]
