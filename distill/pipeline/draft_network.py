"""The networks of drafted recipes: which one, at which size, from which weights, and how such a network is trained."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from timm.models import get_arch_name, get_pretrained_cfg, is_model_in_modules
from torch.nn.modules.batchnorm import _BatchNorm

from distill.errors import MissingError, UsageError
from distill.files import expanded
from distill.models import meta_model, params_of
from distill.recipe.model_specs import TimmModel
from distill.recipe.schema import STUDENT_BUDGET
from distill.text import count
from teachers.timm_backbone import check_name

__all__ = ["DEFAULT_TEACHER", "DraftedNetwork", "compact_resnet", "timm_network"]

DEFAULT_TEACHER = "resnet34"
_RESNETS = ("resnet", "resnetv2")  # timm's modules whose networks can have a stem for small images
_CIFAR_STEM_BELOW = 64  # pixels: a stem that shrinks four times would leave too little
_ENLARGED_TO = 128  # pixels, for other networks with such a stem (docs/results/real-images.md)
_SMALL = "tf_efficientnet_lite0, mobilenetv3_small_100 or resnet10t, for example"

# YAML of optim, and epochs of warm-up, by the kind of network
_OPTIM = {
    "resnet": (
        "{name: sgd, lr: 0.02, momentum: 0.9, weight_decay: 5e-4, backbone_lr_scale: 0.2}  # a new head: faster",
        1,
    ),
    "batch norm": ("{name: adamw, lr: 2e-3, weight_decay: 0.01}", 0.3),  # as lite2_cifar10
    "layer norm": (  # as vit_tiny_cifar10
        "{name: adamw, lr: 5e-4, weight_decay: 0.05, decay_norm_and_bias: false, layer_decay: 0.75}",
        1,
    ),
}

Role = Literal["teacher", "student"]
Stem = Literal["cifar", "imagenet"]


@dataclass(frozen=True)
class DraftedNetwork:
    """A network as a drafted recipe states it, with what such a network is trained with.

    Attributes:
        title: What it is, for the first line of a recipe.
        model, optim: YAML of these sections.
        why: Why it has that size and that stem.
        weights: ``pretrained``, ``none``, or a file.
        warmup: Epochs; None: a share of the epochs.
        clip: Whether gradients are clipped.
    """

    title: str
    model: str
    why: str
    optim: str
    weights: str = "none"
    warmup: float | None = None
    clip: bool = False

    @property
    def from_scratch(self) -> bool:
        """Whether its initial weights are random."""
        return self.weights == "none"


def compact_resnet(side: int, *, few: bool) -> DraftedNetwork:
    """A student of distill's own, from scratch, for images of ``side`` pixels.

    Args:
        few: There are few images: a network of a quarter of the parameters.
    """
    channels = [16, 32, 64, 128] if few else [32, 64, 128, 256]
    strides = [1, 2, 2, 2] if side <= 48 else [2, 2, 2, 2]
    return DraftedNetwork(
        title="a compact ResNet",
        model=f"{{source: students, name: resnet, blocks: [2, 2, 2, 2], channels: {channels}, strides: {strides},\n"
        f"        input_size: {side}, max_params: {STUDENT_BUDGET}}}",
        why="narrow: there are few images to learn from"
        if few
        else "wide enough for these images, and under the budget",
        optim="{name: sgd, lr: 0.05, momentum: 0.9, nesterov: true, weight_decay: 5e-4}",
    )


def timm_network(
    name: str, *, role: Role, side: int, classes: int, weights: str | Path | None = None
) -> DraftedNetwork:
    """A network by timm's name, for images of ``side`` pixels.

    Args:
        weights: A ``.safetensors`` file of that network; None: those that timm has of it.

    Raises:
        UsageError: timm has no such network, no weights of that one, or it is too large for a student.
        MissingError: There is no such file.
    """
    option = f"--{role}"
    config = _config(name, option)
    source = _weights(name, option, weights, in_timm=config.has_weights)
    resnet = is_model_in_modules(get_arch_name(name), list(_RESNETS))
    stem: Stem = "cifar" if resnet and side < _CIFAR_STEM_BELOW else "imagenet"
    size, why = _size(side, stem=stem, resnet=resnet, fixed=config.input_size[-1] if config.fixed_input_size else None)
    spec = TimmModel(source="timm", name=name, stem=stem, weights="none", input_size=size)
    if role == "student" and (params := params_of(spec, classes)) > STUDENT_BUDGET:
        raise UsageError(
            f"{option} {name}: {params:,} parameters; a student has at most {count(STUDENT_BUDGET)}", hint=_SMALL
        )
    kind = "resnet" if resnet else "batch norm" if _has_batch_norm(spec, classes) else "layer norm"
    optim, warmup = _OPTIM[kind]
    told, whose = (source, "ImageNet weights") if source == "pretrained" else (json.dumps(source), "a file's weights")
    budget = f",\n        max_params: {STUDENT_BUDGET}" if role == "student" else ""
    return DraftedNetwork(
        title=f"timm's {'ResNet-34' if name == DEFAULT_TEACHER else name} with {whose}",
        model=f"{{source: timm, name: {name}, stem: {stem}, weights: {told}, input_size: {size}{budget}}}",
        why=why,
        optim=optim,
        weights=source,
        warmup=warmup,
        clip=kind == "layer norm",
    )


def _config(name: str, option: str) -> Any:
    """What timm says of that network's weights; ``name`` may have a tag behind a dot."""
    try:
        check_name(name)
    except ValueError as error:
        raise UsageError(f"{option}: {error}", hint="names are timm's, as timm.list_models() tells them") from error
    config = get_pretrained_cfg(name)
    if config is None:  # a name that timm knows from former days
        raise UsageError(f"{option} {name}: timm has another name for it", hint="timm.list_models() tells it")
    return config


def _weights(name: str, option: str, path: str | Path | None, *, in_timm: bool) -> str:
    if path is None:
        if not in_timm:
            raise UsageError(
                f"{option} {name}: timm has no weights of it, and from scratch it would learn little",
                hint=f"another network, or {option}-weights FILE.safetensors",
            )
        return "pretrained"
    if not expanded(path).is_file():
        raise MissingError(f"{option}-weights {path}: no such file", hint="a .safetensors file of that network")
    if Path(path).suffix != ".safetensors":
        raise UsageError(
            f"{option}-weights {path}: no .safetensors file", hint="a pickle can run code when it is loaded: convert it"
        )
    return str(path)


def _size(side: int, *, stem: Stem, resnet: bool, fixed: int | None) -> tuple[int, str]:
    """Pixels that the network is shown, and why."""
    if stem == "cifar":
        return side, "a stem for small images: its own would shrink them four times before the first block"
    if fixed is not None and fixed != side:
        return fixed, f"it is built for {fixed} pixels: images are resized on the device"
    if side < _ENLARGED_TO and not resnet:
        return _ENLARGED_TO, "its stem is one for large images: smaller ones are enlarged on the device"
    return side, "its own stem; images stay at the size they are kept at"


def _has_batch_norm(spec: TimmModel, classes: int) -> bool:
    return any(isinstance(module, _BatchNorm) for module in meta_model(spec, classes).modules())
