"""What timm says of a network by its name, before anything is built."""

from __future__ import annotations

from typing import Any

from timm.models import get_arch_name, get_pretrained_cfg, is_model_in_modules

from distill.errors import UsageError
from teachers.timm_backbone import check_name

__all__ = ["is_resnet", "timm_config"]

_RESNETS = ("resnet", "resnetv2")  # timm's modules whose networks can have a stem for small images


def timm_config(name: str) -> Any:
    """What timm says of a network's weights: whether there are any, their tag, the size that they were trained at.

    Args:
        name: With or without a tag behind a dot.

    Raises:
        UsageError: timm has no such network, or knows it by another name today.
    """
    try:
        check_name(name)
    except ValueError as error:
        hint = "names are timm's, as timm.list_models() tells them; hf-hub: and local-dir: go into the recipe by hand"
        raise UsageError(str(error), hint=hint) from error
    config = get_pretrained_cfg(name)
    if config is None:  # a name of former days
        raise UsageError(f"timm has another name for {name}", hint=f"timm.create_model({name!r}) warns with it")
    return config


def is_resnet(name: str) -> bool:
    """Whether the network can have ``stem: cifar``."""
    return bool(is_model_in_modules(get_arch_name(name), list(_RESNETS)))
