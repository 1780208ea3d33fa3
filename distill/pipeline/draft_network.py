"""The networks of drafted recipes: which one, at which size, from which weights, and how such a network is trained."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch.nn.modules.batchnorm import _BatchNorm

from distill.errors import DistillError, MissingError, UsageError
from distill.files import expanded
from distill.models import meta_model, params_of, stages
from distill.models.timm_names import is_resnet, timm_config
from distill.models.weights import load_weights
from distill.recipe.model_specs import ResNetModel, TimmModel
from distill.recipe.schema import STUDENT_BUDGET
from distill.text import count

__all__ = ["DEFAULT_TEACHER", "DraftedNetwork", "check_choice", "compact_resnet", "timm_network"]

DEFAULT_TEACHER = "resnet34"
_CIFAR_STEM_BELOW = 64  # pixels: a stem that shrinks four times would leave too little
_ENLARGED_TO = 128  # pixels, for other networks with such a stem (docs/results/real-images.md)
_SMALL = "tf_efficientnet_lite0, mobilenetv3_small_100 or resnet10t, for example"

_WARMUP_STEPS = 100  # of AdamW, whose first steps are as large as the others
# YAML of optim, by the kind of network. The second as measured on a small folder (docs/results/real-images.md), where
# more epochs of it made answers worse; the last as in vit_tiny_cifar10.
_OPTIM = {
    "resnet": "{name: sgd, lr: 0.02, momentum: 0.9, weight_decay: 5e-4, backbone_lr_scale: 0.2}  # a new head: faster",
    "batch norm": "{name: adamw, lr: 1e-3, weight_decay: 0.01}",
    "layer norm": "{name: adamw, lr: 5e-4, weight_decay: 0.05, decay_norm_and_bias: false, layer_decay: 0.75}",
}
_MOST_EPOCHS = {"resnet": 40, "batch norm": 10, "layer norm": 40}

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
        params: So many parameters.
        warmup: Steps; None: as its role has it.
        clip: Whether gradients are clipped.
        most_epochs: Of fine-tuning a teacher, however few the pictures.
    """

    title: str
    model: str
    why: str
    optim: str
    params: int
    weights: str = "none"
    warmup: int | None = None
    clip: bool = False
    most_epochs: int = 40

    @property
    def sized(self) -> str:
        """Its title and its parameters."""
        return f"{self.title}, {count(self.params)} parameters"

    @property
    def from_scratch(self) -> bool:
        """Whether its initial weights are random."""
        return self.weights == "none"


def compact_resnet(side: int, *, few: bool, classes: int) -> DraftedNetwork:
    """A student of distill's own, from scratch, for images of ``side`` pixels.

    Args:
        few: There are few images: a network of a quarter of the parameters.
    """
    blocks, channels = (2, 2, 2, 2), (16, 32, 64, 128) if few else (32, 64, 128, 256)
    strides = (1, 2, 2, 2) if side <= 48 else (2, 2, 2, 2)
    shape = {"blocks": blocks, "channels": channels, "strides": strides}
    spec = ResNetModel.model_validate({"source": "students", "name": "resnet", "input_size": side} | shape)
    told = ", ".join(f"{key}: {list(value)}" for key, value in shape.items())
    return DraftedNetwork(
        title="a compact ResNet",
        model=f"{{source: students, name: resnet, {told},\n        input_size: {side}, max_params: {STUDENT_BUDGET}}}",
        why="narrow: there are few images to learn from"
        if few
        else "wide enough for these images, and under the budget",
        optim="{name: sgd, lr: 0.05, momentum: 0.9, nesterov: true, weight_decay: 5e-4}",
        params=params_of(spec, classes),
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
    resnet = is_resnet(name)
    stem: Stem = "cifar" if resnet and side < _CIFAR_STEM_BELOW else "imagenet"
    size, why = _size(side, stem=stem, resnet=resnet, fixed=config.input_size[-1] if config.fixed_input_size else None)
    spec = TimmModel(source="timm", name=name, stem=stem, weights="none", input_size=size)
    params = params_of(spec, classes)
    if role == "student" and params > STUDENT_BUDGET:
        raise UsageError(
            f"{option} {name}: {params:,} parameters; a student has at most {count(STUDENT_BUDGET)}", hint=_SMALL
        )
    if source != "pretrained":
        _check_weights(source, spec, classes, option)
    kind = "resnet" if resnet else "batch norm" if _has_batch_norm(spec, classes) else "layer norm"
    optim = _OPTIM[kind] if _has_stages(spec, classes) else _OPTIM[kind].replace(", layer_decay: 0.75", "")
    told, whose = "pretrained", f"timm's weights{f' ({config.tag})' if config.tag else ''}"
    if source != "pretrained":
        told, whose = json.dumps(source, ensure_ascii=False), "a file's weights"
    budget = f", max_params: {STUDENT_BUDGET}" if role == "student" else ""
    return DraftedNetwork(
        title=f"timm's {'ResNet-34' if name == DEFAULT_TEACHER else name} with {whose}",
        model=f"{{source: timm, name: {name}, stem: {stem}, weights: {told}, head_init: fan_in,\n"
        f"        input_size: {size}{budget}}}",
        why=why,
        optim=optim,
        params=params,
        weights=source,
        warmup=None if kind == "resnet" else _WARMUP_STEPS,
        clip=kind == "layer norm",
        most_epochs=_MOST_EPOCHS[kind],
    )


def check_choice(name: str, *, role: Role, weights: str | Path | None) -> None:
    """Refuse what can be told without a look at the pictures.

    Raises:
        UsageError, MissingError: As :func:`timm_network`.
    """
    _weights(name, f"--{role}", weights, in_timm=_config(name, f"--{role}").has_weights)


def _config(name: str, option: str) -> Any:
    try:
        return timm_config(name)
    except UsageError as error:
        raise UsageError(f"{option}: {error.message}", hint=error.hint) from error


def _weights(name: str, option: str, path: str | Path | None, *, in_timm: bool) -> str:
    if path is None:
        if not in_timm:
            raise UsageError(
                f"{option} {name}: timm has no weights of it, and from scratch it would learn little",
                hint=f"another network, or {option}-weights FILE.safetensors",
            )
        return "pretrained"
    if expanded(path).is_dir():
        raise UsageError(f"{option}-weights {path}: a folder", hint="a .safetensors file of that network")
    if not expanded(path).is_file():
        raise MissingError(f"{option}-weights {path}: no such file", hint="a .safetensors file of that network")
    if Path(path).suffix != ".safetensors":
        raise UsageError(
            f"{option}-weights {path}: no .safetensors file", hint="a pickle can run code when it is loaded: convert it"
        )
    return str(expanded(path))


def _check_weights(path: str, spec: TimmModel, classes: int, option: str) -> None:
    """Refuse a file of another network now, and not after hours: for the student, after its teacher was trained."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch's, that a network without storage keeps nothing
            load_weights(meta_model(spec, classes), path, spec)
    except DistillError as error:
        hint = f"name a whole file of {spec.name}'s weights; or, with {option}, the network that they are of"
        raise UsageError(f"{option}-weights: {error.message}", hint=hint) from error


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


def _has_stages(spec: TimmModel, classes: int) -> bool:
    """Whether timm tells which of its parameters lie how deep."""
    try:
        stages(meta_model(spec, classes))
    except (AssertionError, RuntimeError):  # of a few families it says that this is not implemented
        return False
    return True
