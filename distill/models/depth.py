"""Where a parameter stands in its network: in the stem, in which stage, in the classifier."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from teachers.conv_head import ConvHead

__all__ = ["head_parameters", "stage_of", "stages"]


def head_parameters(module: nn.Module) -> set[str]:
    """The names of the classifier's parameters."""
    heads: list[nn.Module] = [m for m in module.modules() if isinstance(m, ConvHead)]
    get_classifier: Any = getattr(module, "get_classifier", None)
    if not heads and get_classifier is not None:
        classifier = get_classifier()
        named = list(classifier) if isinstance(classifier, tuple | list) else [classifier]
        heads = [each for each in named if isinstance(each, nn.Module)]
    if not heads:
        linears: list[nn.Module] = [m for m in module.modules() if isinstance(m, nn.Linear)]
        heads = linears[-1:]
    owned = {id(p) for head in heads for p in head.parameters()}
    return {name for name, p in module.named_parameters() if id(p) in owned}


def stages(module: nn.Module) -> list[tuple[str, ...]]:
    """The parameters in order of depth: stem, stages, and the classifier last.

    Each stage is a tuple of modules' names, with a dot behind them, and of parameters' own: :func:`stage_of` tells
    which one a parameter is in. Every parameter is in exactly one.
    """
    head = head_parameters(module)
    depth = {name: d for name, d in _depths(module).items() if name not in head}
    groups = [[name for name, d in depth.items() if d == level] for level in sorted(set(depth.values()))]
    return [tuple(_prefixes(module, set(group))) for group in [*groups, sorted(head)] if group]


def stage_of(name: str, stages: Sequence[tuple[str, ...]]) -> int:
    """Which of :func:`stages` a parameter is in, by its name.

    >>> stage_of("cls_mix.weight", [("cls",), ("cls_mix.",)])
    1
    """
    return next(
        at
        for at, stage in enumerate(stages)
        if name in stage or name.startswith(tuple(place for place in stage if place.endswith(".")))
    )


def _depths(module: nn.Module) -> dict[str, int]:
    group_matcher: Any = getattr(module, "group_matcher", None)
    if group_matcher is not None:
        from timm.models import group_parameters  # seconds to import, and few recipes ask for stages

        return dict(group_parameters(module, group_matcher(coarse=True), reverse=True))
    places = list(_places(module))
    return {
        name: next((depth for depth, place in enumerate(places, start=1) if name.startswith(place)), 0)
        for name, _ in module.named_parameters()
    }


def _places(module: nn.Module) -> Iterator[str]:
    """Where depth grows in a network that does not say so: from child to child, and within ``stages``."""
    for name, child in module.named_children():
        if name == "stages" and isinstance(child, nn.Sequential):
            yield from (f"stages.{inner}." for inner, _ in child.named_children())
        else:
            yield f"{name}."


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
