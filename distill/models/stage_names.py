"""Where a network's stages are: the same names for every network, found from how it is put together."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from teachers.conv_head import ConvHead

__all__ = ["classifier_of", "stage_modules"]

_STEM = re.compile(r"(^|\.)(stem|conv|bn|norm|act|relu)[^.]*$")  # how timm's stems end


def stage_modules(module: nn.Module) -> dict[str, str]:
    """Where each stage but ``pooled`` leaves the network: the stage's name to the module's, in order of depth."""
    found: dict[str, str] = {}
    stages = getattr(module, "stages", None)
    if isinstance(stages, nn.Sequential | nn.ModuleList):
        if isinstance(getattr(module, "stem", None), nn.Module):
            found["stem"] = "stem"
        return found | {f"stage{at}": f"stages.{name}" for at, (name, _) in enumerate(stages.named_children(), 1)}
    known = dict(module.named_modules())
    for info in getattr(module, "feature_info", ()):  # as timm states it
        place = info.get("module", "") if isinstance(info, dict) else ""
        if place in known:
            is_stem = not found and _STEM.search(place)
            found["stem" if is_stem else f"stage{len(found.keys() - {'stem'}) + 1}"] = place
    return found


def classifier_of(module: nn.Module) -> nn.Module | None:
    """The last layer: what its input is, is ``pooled``."""
    for each in module.modules():
        if isinstance(each, ConvHead):
            return each.fc
    get_classifier: Any = getattr(module, "get_classifier", None)
    head = get_classifier() if get_classifier is not None else None
    if isinstance(head, nn.Module) and not isinstance(head, nn.Identity):
        return head
    linears = [each for each in module.modules() if isinstance(each, nn.Linear)]
    return linears[-1] if linears else None
