"""The one door to ``teachers/``, ``students/`` and timm: a recipe's ``model:`` section becomes an ``nn.Module``."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import get_pretrained_cfg, group_parameters
from torch import Tensor, nn
from torch.nn import functional as F

from distill.errors import BudgetError, DataError, MissingError, UsageError
from distill.recipe.model_specs import ModelSpec, NormalizeSpec, TimmModel
from distill.recipe.schema import Recipe
from students import STUDENTS
from teachers import TEACHERS
from teachers.pretrained import WeightsUnavailableError
from teachers.timm_backbone import ConvHead, check_name, cifar_stem_state

__all__ = [
    "Normalize",
    "build_model",
    "build_normalize",
    "check_budget",
    "count_params",
    "head_parameters",
    "params_of",
    "resolved_model",
    "stages",
    "without_weights",
]

_NOT_OPTIONS = {"source", "name", "normalize", "max_params", "weights"}
_NETWORK_MODULES = {"huggingface_hub", "httpx", "httpx2", "requests", "urllib3"}
_NO_WEIGHTS = (
    "train from scratch: --set model.weights=none; or name a downloaded file: --set model.weights=FILE.safetensors; "
    "or set HF_ENDPOINT to a mirror of the Hugging Face hub"
)


def build_model(spec: ModelSpec, *, num_classes: int, seed: int = 0) -> nn.Module:
    """Build the network on the CPU, with initial weights drawn from ``seed`` alone.

    The global random state is neither read nor moved. Pretrained weights are timm's, cached by huggingface_hub; of a
    ``.safetensors`` file everything but the classifier must fit, and the classifier is kept where it fits too.

    Raises:
        UsageError: No such network, or options that do not go together.
        MissingError: Pretrained weights, or the file, are not there and cannot be fetched.
        DataError: A weights file that is damaged or belongs to another network.
    """
    weights = spec.weights if isinstance(spec, TimmModel) else "none"
    with torch.random.fork_rng(devices=[]):
        # not torch.manual_seed: that would seed every accelerator's generator as well
        torch.default_generator.manual_seed(seed)
        module = _build(spec, num_classes, pretrained=weights == "pretrained")
    if weights not in ("none", "pretrained"):
        _load_weights(module, weights, spec)
    return module


def _build(spec: ModelSpec, num_classes: int, *, pretrained: bool) -> nn.Module:
    options = spec.model_dump(exclude=_NOT_OPTIONS)
    with _as_user_errors(spec):
        if isinstance(spec, TimmModel):
            return TEACHERS["timm"](num_classes=num_classes, name=spec.name, pretrained=pretrained, **options)
        builders = TEACHERS if spec.source == "teachers" else STUDENTS
        return builders[spec.name](num_classes=num_classes, **options)


@contextmanager
def _as_user_errors(spec: ModelSpec) -> Iterator[None]:
    """What builders raise, in a user's terms; the rest is a bug and keeps its traceback."""
    try:
        yield
    except WeightsUnavailableError as error:
        raise MissingError(f"model.weights: {error}", hint=_NO_WEIGHTS) from error
    except Exception as error:
        if _is_network(error):  # first: some of the hub's errors are ValueErrors too
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            message = f"model.weights: the weights of {spec.name} could not be fetched ({reason})"
            raise MissingError(message, hint=_NO_WEIGHTS) from error
        if isinstance(error, ValueError):
            raise UsageError(f"model {spec.name}: {error}") from error
        raise


def _is_network(error: Exception) -> bool:
    families = {kind.__module__.split(".")[0] for kind in type(error).__mro__}
    return isinstance(error, OSError) or bool(families & _NETWORK_MODULES)


def _load_weights(module: nn.Module, path: str, spec: TimmModel) -> None:
    """Load a file's weights: all but the classifier must fit; the classifier is loaded where it fits."""
    state = _read_weights(path)
    if spec.stem == "cifar":
        state = cifar_stem_state(module, state)
    # timm's families that changed their layout, or resample position embeddings, keep a function of this name
    adapt = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    state = adapt(state, module) if adapt else state
    own, head = module.state_dict(), head_parameters(module)
    classifier = getattr(get_pretrained_cfg(spec.name), "classifier", None) or ()
    dropped = tuple(f"{name}." for name in ((classifier,) if isinstance(classifier, str) else classifier))
    body = {k: v for k, v in state.items() if k not in head and not k.startswith(dropped)}
    wanted = {k: v for k, v in own.items() if k not in head and not k.endswith("num_batches_tracked")}
    problems = [f"{k} is missing" for k in wanted if k not in body]
    problems += [f"{k} is unknown" for k in body if k not in own]
    shared = [(k, tuple(body[k].shape), tuple(v.shape)) for k, v in wanted.items() if k in body]
    problems += [f"{k} is {theirs}, not {ours}" for k, theirs, ours in shared if theirs != ours]
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise DataError(f"{path} does not fit {spec.name}: {'; '.join(problems[:3])}{more}")
    if all(k in state and state[k].shape == own[k].shape for k in head):
        body |= {k: state[k] for k in head}
    module.load_state_dict(body, strict=False)


def _read_weights(path: str) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise MissingError(f"model.weights: no file {path}", hint="paths start at the current folder") from error
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is not a readable safetensors file: {error}") from error


def without_weights(spec: ModelSpec) -> ModelSpec:
    """The same network with nothing to fetch: its weights are random, or come from elsewhere."""
    return spec.model_copy(update={"weights": "none"}) if spec.source == "timm" else spec


def count_params(module: nn.Module) -> int:
    """The number of parameters, shared ones once."""
    return sum(p.numel() for p in module.parameters())


def params_of(spec: ModelSpec, num_classes: int) -> int:
    """The number of parameters the network would have; nothing is allocated, no weights are fetched.

    Raises:
        UsageError: No such network, or options that do not go together.
    """
    with torch.device("meta"):
        return count_params(_build(spec, num_classes, pretrained=False))


def check_budget(recipe: Recipe, num_classes: int) -> int:
    """The recipe's number of parameters.

    Raises:
        BudgetError: It is above ``recipe.max_params``.
    """
    count, limit = params_of(recipe.model, num_classes), recipe.max_params
    if limit is not None and count > limit:
        raise BudgetError(
            f"{recipe.name}: {count:,} parameters, over the budget of {limit:,}",
            hint=f"fewer blocks or channels; or another budget: --set model.max_params={count}",
        )
    return count


@dataclass(frozen=True)
class Normalize:
    """Pixels to what a network expects: resized to ``input_size``, then ``(x / 255 - mean) / std``.

    Attributes:
        mean: By channel, for pixels scaled to 0..1.
        std: By channel, each above 0.
        input_size: Side of the network's input in pixels.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    input_size: int

    def __call__(self, pixels: Tensor) -> Tensor:
        """Normalise on the pixels' own device.

        Resizing is bilinear, antialiased where it shrinks (where it grows, antialiasing changes nothing). It commutes
        with normalising, so whichever is cheaper comes first.

        Shapes:
            pixels: ``(B, 3, S, S)`` uint8, or float in 0..255.
            returns: ``(B, 3, input_size, input_size)`` float32.
        """
        if pixels.shape[-1] > self.input_size:
            return self._scale(self._resize(pixels.float()))
        scaled = self._scale(pixels)
        return self._resize(scaled) if pixels.shape[-1] < self.input_size else scaled

    def _scale(self, pixels: Tensor) -> Tensor:
        factor, offset = _affine(self.mean, self.std, pixels.device)
        # in place on a fresh copy: on a CPU 20 times faster than addcmul or mixed types, which are not vectorised
        return pixels.to(torch.float32, copy=True).mul_(factor).add_(offset)

    def _resize(self, x: Tensor) -> Tensor:
        size = (self.input_size, self.input_size)
        shrink = x.shape[-1] > self.input_size
        return F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=shrink)


@functools.lru_cache(maxsize=64)
def _affine(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """``(1 / (255 std), -mean / std)``, kept on the device: a copy there every batch would wait for it."""
    with torch.inference_mode(False):
        m, s = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
        factor, offset = 1.0 / (255.0 * s), -m / s
        return tuple(t.to(torch.float32).view(1, 3, 1, 1).to(device) for t in (factor, offset))


def build_normalize(spec: ModelSpec, *, mean: tuple[float, ...], std: tuple[float, ...]) -> Normalize:
    """The network's normalisation: its own, or what its pretrained weights expect, or the training images'.

    Args:
        mean: Of the training images, by channel, in 0..1.
        std: The same; a channel that never varies is left unscaled.
    """
    if isinstance(spec.normalize, NormalizeSpec):
        mean, std = spec.normalize.mean, spec.normalize.std
    elif isinstance(spec, TimmModel) and spec.weights == "pretrained":
        with _as_user_errors(spec):
            check_name(spec.name)
        config = get_pretrained_cfg(spec.name)
        mean, std = config.mean, config.std
    std = tuple(float(s) if s > 0 else 1.0 for s in std)
    return Normalize(mean=tuple(float(m) for m in mean), std=std, input_size=spec.input_size)


def resolved_model(spec: ModelSpec, normalize: Normalize) -> ModelSpec:
    """The same model with its normalisation spelled out, as a run stores it."""
    return spec.model_copy(update={"normalize": NormalizeSpec(mean=normalize.mean, std=normalize.std)})


def head_parameters(module: nn.Module) -> set[str]:
    """The names of the classifier's parameters."""
    heads = [m for m in module.modules() if isinstance(m, ConvHead)]
    if not heads and hasattr(module, "get_classifier"):
        classifier = module.get_classifier()
        heads = list(classifier) if isinstance(classifier, tuple | list) else [classifier]
    if not heads:
        heads = [m for m in module.modules() if isinstance(m, nn.Linear)][-1:]
    owned = {id(p) for head in heads for p in head.parameters()}
    return {name for name, p in module.named_parameters() if id(p) in owned}


def stages(module: nn.Module) -> list[tuple[str, ...]]:
    """The parameters in order of depth: stem, stages, and the classifier last.

    Each stage is a tuple for ``str.startswith``: ``name.startswith(stage)`` tells whether a parameter or buffer, by its
    name, is in it. Every parameter is in exactly one.
    """
    head = head_parameters(module)
    depth = {name: d for name, d in _depths(module).items() if name not in head}
    groups = [[name for name, d in depth.items() if d == level] for level in sorted(set(depth.values()))]
    return [tuple(_prefixes(module, set(group))) for group in [*groups, sorted(head)] if group]


def _depths(module: nn.Module) -> dict[str, int]:
    if hasattr(module, "group_matcher"):
        return group_parameters(module, module.group_matcher(coarse=True), reverse=True)
    children = {name: i for i, (name, _) in enumerate(module.named_children(), start=1)}
    return {name: children.get(name.partition(".")[0], 0) for name, _ in module.named_parameters()}


def _prefixes(module: nn.Module, names: set[str], prefix: str = "") -> Iterator[str]:
    """The fewest module prefixes (``layer1.``) and parameter names that cover exactly ``names``."""
    here = {prefix + name for name, _ in module.named_parameters()}
    if prefix and here and here <= names:
        yield prefix
        return
    yield from (prefix + name for name, _ in module.named_parameters(recurse=False) if prefix + name in names)
    for name, child in module.named_children():
        if here & names:
            yield from _prefixes(child, names, f"{prefix}{name}.")
