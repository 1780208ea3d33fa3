"""In which precision ``auto`` trains one network: bf16 where its arithmetic is there and pays, by a measured rule."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from distill.devices import PrecisionName, resolve_precision
from distill.evaluation.cost import model_cost
from distill.models import meta_model
from distill.recipe import Recipe

__all__ = ["PrecisionDecision", "bf16_pays", "training_precision"]

MIN_MACS = 4_000_000  # of an image: smaller networks spend their time on what bf16 does not make faster


@dataclass(frozen=True)
class PrecisionDecision:
    """A precision; ``why`` is None where the recipe or the kind of device decides."""

    name: PrecisionName
    why: str | None = None
    warning: str | None = None


def training_precision(recipe: Recipe, device: torch.device, *, classes: int) -> PrecisionDecision:
    """What ``train.precision`` becomes; the same on every machine of a kind.

    Raises:
        UsageError: fp16 on a CPU.
    """
    wanted = recipe.train.precision
    if wanted == "auto" and device.type == "cpu" and resolve_precision("bf16", device).warning is None:
        pays, why = bf16_pays(meta_model(recipe.model, classes), recipe.model.input_size)
        return PrecisionDecision("bf16" if pays else "fp32", why)
    resolved = resolve_precision(wanted, device)
    return PrecisionDecision(resolved.name, warning=resolved.warning)


def bf16_pays(module: nn.Module, input_size: int) -> tuple[bool, str]:
    """Whether a training step is faster in bf16 on a CPU that has it natively, and why (docs/results/precision.md).

    What was measured: 1.4 to 2.0 times as fast for networks of 4.5 million multiply-accumulates and more; slower for
    depthwise convolutions; no gain for a network of less than a million.
    """
    deep = next((name for name, layer in module.named_modules() if isinstance(layer, nn.Conv3d)), None)
    if deep is not None:  # seen in timm's lambda networks with torch 2.14.1 on an AMD EPYC
        return False, f"layer {deep} is a 3-d convolution, whose gradients in bf16 are not always finite"
    grouped = next((name for name, layer in module.named_modules() if getattr(layer, "groups", 1) > 1), None)
    if grouped is not None:
        return False, f"layer {grouped} is a grouped convolution, which bf16 does not make faster"
    millions = model_cost(module, input_size).macs / 1e6
    if millions * 1e6 < MIN_MACS:
        least = MIN_MACS / 1e6
        return False, f"{millions:.3g} MMACs an image: bf16 pays from some {least:g} MMACs on"
    size = f"{millions / 1e3:.3g} GMACs" if millions >= 1e3 else f"{millions:.3g} MMACs"
    return True, f"this CPU has bf16, and a network of {size} an image gains by it"
