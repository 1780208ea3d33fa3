"""Weights from a file into a network that may have another classifier, or another stem."""

from __future__ import annotations

import sys
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from distill.errors import DataError, MissingError
from distill.files import regular
from distill.models.depth import head_parameters
from distill.recipe.model_specs import ModelSpec, PythonModel, TimmModel

__all__ = ["load_own_weights", "load_weights", "without_weights"]


def load_weights(module: nn.Module, path: str, spec: TimmModel) -> None:
    """Load a file's weights: all but the classifier must fit; the classifier is loaded where it fits."""
    from timm.models import get_pretrained_cfg

    from teachers.timm_backbone import cifar_stem_state

    state = _read_weights(path)
    if spec.stem == "cifar":
        state = cifar_stem_state(module, state)
    # timm's families that changed their layout, or resample position embeddings, keep a function of this name
    adapt = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    state = adapt(state, module) if adapt else state
    classifier = getattr(get_pretrained_cfg(spec.name), "classifier", None) or ()
    dropped = tuple(f"{name}." for name in ((classifier,) if isinstance(classifier, str) else classifier))
    _fit(module, state, path, spec.name, dropped=dropped)


def load_own_weights(module: nn.Module, path: str, *, prefix: str, name: str) -> None:
    """Load a file's weights into a network of one's own, by the same rule.

    Args:
        prefix: Taken off the names in the file; what does not begin with it is left out.
    """
    state = {key.removeprefix(prefix): value for key, value in _read_weights(path).items() if key.startswith(prefix)}
    if not state:
        raise DataError(f"{path}: no name in it begins with {prefix!r}, which model.weights_prefix says")
    _fit(module, state, path, name, dropped=())


def _fit(module: nn.Module, state: dict[str, Tensor], path: str, name: str, *, dropped: tuple[str, ...]) -> None:
    own, head = module.state_dict(), head_parameters(module)
    body = {k: v for k, v in state.items() if k not in head and not k.startswith(dropped)}
    wanted = {k: v for k, v in own.items() if k not in head and not k.endswith("num_batches_tracked")}
    problems = [f"{k} is missing" for k in wanted if k not in body]
    problems += [f"{k} is unknown" for k in body if k not in own]
    shared = [(k, tuple(body[k].shape), tuple(v.shape)) for k, v in wanted.items() if k in body]
    problems += [f"{k} is {theirs}, not {ours}" for k, theirs, ours in shared if theirs != ours]
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        another = not any(k in own for k in body)
        hint = "they are another network's: --set model.name=NAME (distill models lists them)" if another else None
        raise DataError(f"{path} does not fit {name}: {'; '.join(problems[:3])}{more}", hint=hint)
    if all(k in state and state[k].shape == own[k].shape for k in head):
        body |= {k: state[k] for k in head}
    module.load_state_dict(body, strict=False)


def _read_weights(path: str) -> dict[str, Tensor]:
    try:
        return load_file(regular(Path(path)))
    except FileNotFoundError as error:
        raise MissingError(f"model.weights: no file {path}", hint="paths start at the current folder") from error
    except (SafetensorError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} is not a readable safetensors file: {reason}") from error


def without_weights(spec: ModelSpec) -> ModelSpec:
    """The same network with nothing to fetch: its weights are random, or come from elsewhere."""
    return spec.model_copy(update={"weights": "none"}) if isinstance(spec, TimmModel | PythonModel) else spec
