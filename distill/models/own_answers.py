"""Whether a network of the user's own answers as it did when it was trained: no checkpoint holds its code."""

from __future__ import annotations

from contextlib import suppress

import torch
from torch import Tensor, nn

from distill.code import code_sha256, find_code
from distill.errors import RunError
from distill.recipe.model_specs import PythonModel
from distill.runs import RunFolder
from distill.text import first_line

__all__ = ["keep_own_answers", "require_own_answers"]

_KEY = "own_answers"  # of run.json
_CLOSE = 1e-3  # of the largest logit, 1 at least: other processors and threads differ by some 1e-6


def keep_own_answers(run: RunFolder, module: nn.Module, spec: PythonModel, state: dict[str, Tensor]) -> None:
    """Write down what the network that was trained answers to a fixed pattern, with the weights that its run ships.

    Nothing is written of one that cannot be asked so: whose answers are others each time, or not on this device.

    Args:
        module: As it was trained; it is moved to the CPU, and has ``state`` afterwards.
    """
    with suppress(Exception):  # strangers' code: what cannot be asked now is not compared later
        module.load_state_dict(state)
        module.cpu().eval()
        first, second = (_answers(module, spec) for _ in range(2))
        if torch.equal(first, second) and bool(first.isfinite().all()):
            run.write_info(**{_KEY: first.tolist()})


def require_own_answers(run: RunFolder, module: nn.Module, spec: PythonModel) -> None:
    """Refuse a network, made by its code as it is now, that answers otherwise than the one that was trained.

    Args:
        module: On the CPU, in evaluation mode, with the run's weights.

    Raises:
        RunError: It does.
    """
    kept = run.info.extra.get(_KEY)
    if kept is None:
        return
    expected = torch.tensor(kept)
    try:
        found = _answers(module, spec)
        off = float((found - expected).abs().max() / expected.abs().max().clamp(min=1.0))
    except Exception as error:  # strangers' code, or another number of classes
        said = first_line(error)
        raise RunError(f"{run.path}: {spec.name} cannot answer any more: {said}", hint=_hint(spec)) from error
    if not off <= _CLOSE:
        raise RunError(f"{run.path}: {spec.name} answers otherwise than when it was trained", hint=_hint(spec))


def _hint(spec: PythonModel) -> str:
    now = code_sha256(spec.name, find_code(spec.name, key="model.name"))
    if now != spec.code_sha256:
        return "its file has changed since: put it back, or train again"
    return "it holds what no checkpoint does (a buffer that is not persistent?), or what it imports has changed"


@torch.no_grad()
def _answers(module: nn.Module, spec: PythonModel) -> Tensor:
    """Logits ``(2, C)`` of two patterns, one darker than the mean and one brighter."""
    side = spec.input_size
    logits: Tensor = module(torch.linspace(-1.5, 1.5, 2 * 3 * side * side).view(2, 3, side, side))
    return logits.float()
