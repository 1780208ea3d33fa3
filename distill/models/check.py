"""Whether a recipe's network can do what the recipe asks: found out from its shapes, before anything is made."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from contextlib import suppress

import torch
from torch import Tensor, nn

from distill.errors import BudgetError, DistillError, RecipeError, UsageError
from distill.models.build import build_model, meta_model, params_of
from distill.models.depth import stages
from distill.models.weights import without_weights
from distill.recipe.model_specs import ModelSpec, PythonModel, TimmModel
from distill.recipe.schema import Recipe
from teachers.mistakes import ImageSizeError

__all__ = ["check_budget", "check_network", "check_shapes", "leaves_weights_unused", "needs_values"]

_SIDES = (16, 24, 32, 48, 64, 96, 112, 128, 160, 192, 224, 240, 256, 288, 299, 320, 384, 448, 512)
_MAX_TOLD = 6
_OUTPUT = "its output is"
_LONGEST_REASON = 120
_ANY_CLASSES = 10


def check_network(recipe: Recipe, num_classes: int) -> int:
    """The recipe's number of parameters, of a network that can be trained as the recipe says.

    Raises:
        UsageError: No such network, or options that do not go together.
        BudgetError: It has more parameters than ``recipe.max_params``.
        RecipeError: It cannot be trained so.
    """
    check_shapes(recipe, num_classes)
    return check_budget(recipe, num_classes)


def check_budget(recipe: Recipe, num_classes: int) -> int:
    """The recipe's number of parameters.

    Raises:
        UsageError: No such network, or options that do not go together.
        BudgetError: It is above ``recipe.max_params``.
    """
    count, limit = params_of(recipe.model, num_classes), recipe.max_params
    if limit is not None and count > limit:
        raise BudgetError(
            f"{recipe.name}: {count:,} parameters, over the budget of {limit:,}",
            hint=f"fewer blocks or channels; or another budget: --set model.max_params={count}",
        )
    return count


def check_shapes(recipe: Recipe, num_classes: int) -> None:
    """Send one image through on the meta device, where shapes are followed and nothing is computed.

    Raises:
        UsageError: No such network, or options that do not go together.
        RecipeError: It takes no images of ``model.input_size``, gives no logits, or has no stages to tell apart where
            the recipe asks for that.
    """
    model = recipe.model
    try:
        meta_model(model, num_classes)
    except UsageError as error:
        if isinstance(error.__cause__, ImageSizeError):
            raise RecipeError(f"{recipe.name}: {error.message}", hint=_what_fits(model, num_classes)) from error
        raise
    _check_groups(recipe, num_classes)
    if (reason := _refusal(model, num_classes)) is not None:
        if reason.startswith(_OUTPUT) and isinstance(model, PythonModel):
            raise RecipeError(
                f"{recipe.name}: {model.name} gives no logits: {reason}", hint="its classifier has num_classes outputs"
            )
        message = f"{recipe.name}: {model.name} cannot take images of {model.input_size} pixels"
        if hint := _what_fits(model, num_classes):  # the size is to blame: a tensor's shapes would tell nobody more
            raise RecipeError(message, hint=hint)
        given = "its forward is given images (B, 3, S, S), with S of model.input_size"
        hint = given if isinstance(model, PythonModel) else "choose another model.name"
        raise RecipeError(f"{message}, nor of any size that was tried: {reason}", hint=hint)
    if isinstance(model, PythonModel):
        _check_own(recipe, num_classes)


def _check_own(recipe: Recipe, num_classes: int) -> None:
    """What a network's own code may keep it from, told before a run's folder is there."""
    module = meta_model(recipe.model, num_classes)
    if strange := next((key for key, each in module.state_dict().items() if not isinstance(each, Tensor)), None):
        raise RecipeError(
            f"{recipe.name}: the state of {recipe.model.name} holds {strange}, which is no tensor",
            hint="without get_extra_state(): a checkpoint holds tensors alone; register_buffer keeps one",
        )
    output = _in_training(recipe, module, num_classes)
    may_learn = any(parameter.requires_grad for parameter in module.parameters())
    if may_learn and not output.requires_grad:
        raise RecipeError(
            f"{recipe.name}: the logits of {recipe.model.name} do not depend on its weights: nothing can be learned",
            hint="forward without torch.no_grad(), inference_mode(), detach() or item()",
        )
    if recipe.train.ema > 0:
        with torch.random.fork_rng(devices=[]):  # one that was passed nothing yet, as where the average is begun
            fresh = build_model(without_weights(recipe.model), num_classes=num_classes)
        try:
            copy.deepcopy(fresh)
        except Exception as error:
            raise RecipeError(
                f"{recipe.name}: train.ema cannot copy {recipe.model.name}: {_in_short(error)}",
                hint="torch.nn.utils.parametrizations in the place of torch.nn.utils; or --set train.ema=0",
            ) from error


def _in_training(recipe: Recipe, module: nn.Module, num_classes: int) -> Tensor:
    """Its logits in training mode, of two images: some networks have another way through for it."""
    model = recipe.model
    output: object = None
    module.train()
    with suppress(Exception), torch.enable_grad():  # batch norm cannot train on one image
        output = module(torch.zeros(2, 3, model.input_size, model.input_size, device="meta"))
    module.eval()
    with suppress(Exception):  # some keep what they worked out, and of gradients such a thing cannot be copied
        _pass_one(module, model.input_size, device="meta")
    if output is None:  # shapes alone were not enough, or it fails
        fresh = build_model(without_weights(model), num_classes=num_classes).train()
        try:
            with torch.enable_grad(), torch.random.fork_rng(devices=[]):
                output = fresh(torch.zeros(2, 3, model.input_size, model.input_size))
        except Exception as error:
            raise RecipeError(
                f"{recipe.name}: {model.name} fails in training mode: {_in_short(error)}",
                hint="in evaluation mode it answers: look at what its forward does where self.training",
            ) from error
    if not isinstance(output, Tensor):
        raise RecipeError(
            f"{recipe.name}: {model.name} gives {type(output).__name__} in training mode, and no logits",
            hint="logits alone, in training mode as in evaluation mode",
        )
    return output


def leaves_weights_unused(spec: ModelSpec) -> bool:
    """Whether some of a network's weights get no gradient from its logits, or shapes alone do not tell."""
    module = meta_model(spec, _ANY_CLASSES)
    module.train()
    try:
        with torch.enable_grad():
            module(torch.zeros(2, 3, spec.input_size, spec.input_size, device="meta")).sum().backward()
        return any(parameter.requires_grad and parameter.grad is None for parameter in module.parameters())
    except Exception:
        return True
    finally:
        module.eval()
        module.zero_grad()


# What the optimiser asks


def _check_groups(recipe: Recipe, num_classes: int) -> None:
    if recipe.optim.layer_decay == 1.0:
        return
    try:
        stages(meta_model(recipe.model, num_classes))
    except (AssertionError, NotImplementedError) as error:
        raise RecipeError(
            f"{recipe.name}: optim.layer_decay needs the stages of {recipe.model.name}: {_in_short(error)}",
            hint="--set optim.layer_decay=1.0; optim.backbone_lr_scale needs no stages",
        ) from error


# What it takes


def _refusal(spec: ModelSpec, num_classes: int) -> str | None:
    """Why an image of ``spec.input_size`` does not become logits, in a few words; None where it does."""
    try:
        output = _pass_one(meta_model(spec, num_classes), spec.input_size, device="meta")
    except Exception as on_meta:  # a network's own code can raise nearly anything
        if not needs_values(on_meta):
            return _in_short(on_meta)
        try:
            module = build_model(without_weights(spec), num_classes=num_classes).eval()
            output = _pass_one(module, spec.input_size, device="cpu")
        except Exception as error:
            return _in_short(error)
    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    return None if shape == (1, num_classes) else f"{_OUTPUT} {shape}, not (1, {num_classes}) for one image"


def _pass_one(module: nn.Module, side: int, *, device: str) -> object:
    with torch.no_grad():
        return module(torch.zeros(1, 3, side, side, device=device))


def needs_values(error: Exception) -> bool:
    """Whether shapes alone were not enough: an operation without a meta kernel, or one that reads a tensor's values."""
    said = str(error)
    return isinstance(error, NotImplementedError) or "meta tensor" in said or "device meta" in said


def _in_short(error: Exception) -> str:
    first = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return first if len(first) <= _LONGEST_REASON else f"{first[:_LONGEST_REASON]}..."


def _what_fits(spec: ModelSpec, num_classes: int) -> str | None:
    """Sizes close to the one that was asked for, tried out one by one; None where none of them fits."""
    own = _made_for(spec)
    fits = sorted(itertools.islice(_fitting(spec, num_classes, own), _MAX_TOLD))
    if not fits:
        return None
    best = next((side for side in fits if side > spec.input_size), fits[-1])
    sizes = ", ".join(str(side) for side in fits)
    made = f" (made for {own})" if own is not None else ""
    return f"sizes that it takes: {sizes}{made}; images are resized to it: --set model.input_size={best}"


def _made_for(spec: ModelSpec) -> int | None:
    if not isinstance(spec, TimmModel):
        return None
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(spec.name)
    return None if config is None else int(config.input_size[-1])


def _fitting(spec: ModelSpec, num_classes: int, own: int | None) -> Iterator[int]:
    """Sizes that go through, the closest to ``spec.input_size`` first."""
    sides = {*_SIDES, *([] if own is None else [own])} - {spec.input_size}
    for side in sorted(sides, key=lambda side: (abs(side - spec.input_size), side)):
        try:
            if _refusal(spec.model_copy(update={"input_size": side}), num_classes) is None:
                yield side
        except DistillError:  # it cannot even be built for this size
            continue
