"""The shapes that a search may choose: so many blocks and so many channels, stage by stage. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from distill.errors import UsageError
from distill.recipe import Recipe
from distill.recipe.search_space import SearchSpec
from distill.sweeps.plan import Trial

__all__ = ["Profile", "Shape", "Space", "space_of"]

_DEEPEST, _WIDEST = 4, 256


@dataclass(frozen=True)
class Shape:
    """Blocks and channels by stage; a family without blocks to choose has none."""

    depths: tuple[int, ...]
    widths: tuple[int, ...]

    def __str__(self) -> str:
        depths = f"{'-'.join(map(str, self.depths))} blocks, " if self.depths else ""
        return f"{depths}{'-'.join(map(str, self.widths))} channels"


@dataclass(frozen=True)
class Profile:
    """A shape without its size: blocks, and channels in relation to one another."""

    depths: tuple[int, ...]
    ratios: tuple[float, ...]

    @classmethod
    def of(cls, shape: Shape) -> Profile:
        """Of a shape, which it has at scale 1."""
        return cls(shape.depths, tuple(map(float, shape.widths)))


@dataclass(frozen=True)
class _Family:
    """Which keys of a student's model say how deep and how wide it is; ``scalar``: one number, no list."""

    depth: str | None
    widths: tuple[str, ...]
    scalar: bool = False


_FAMILIES = {
    "resnet": _Family("blocks", ("channels",)),
    "grouped_resnet": _Family("blocks", ("channels",)),
    "cnn": _Family(None, ("channels", "hidden")),
    "fast": _Family("convolutions", ("channels",)),
    "tiny": _Family(None, ("width",), scalar=True),
    "vgg": _Family("convolutions", ("channels",)),
}


@dataclass(frozen=True)
class Space:
    """The shapes of one recipe's family, within bounds.

    Attributes:
        own: The recipe's own shape, which need not lie within.
        depths: Fewest and most blocks of each stage.
        widest, narrowest: Multiples of ``multiple``.
        rises: Channels may not fall from stage to stage.
    """

    model: dict[str, Any]
    family: _Family
    own: Shape
    depths: tuple[tuple[int, int], ...]
    narrowest: int
    widest: int
    multiple: int
    rises: bool

    def at(self, profile: Profile, scale: float) -> Shape:
        """The shape of a profile whose channels are ``scale`` times its ratios, in multiples, within bounds."""
        return self.settled(Shape(profile.depths, tuple(round(scale * ratio) for ratio in profile.ratios)))

    def settled(self, shape: Shape) -> Shape:
        """The nearest shape that lies within."""
        depths = tuple(min(max(n, low), high) for n, (low, high) in zip(shape.depths, self.depths, strict=True))
        widths, least = list[int](), self.narrowest
        for width in shape.widths:
            # Half a multiple goes up, whatever the parity: round() would go to the even one.
            multiple = (2 * width + self.multiple) // (2 * self.multiple) * self.multiple
            widths.append(min(max(multiple, least), self.widest))
            least = widths[-1] if self.rises else least
        return Shape(depths, tuple(widths))

    @property
    def smallest(self) -> Shape:
        """Fewest blocks, fewest channels."""
        return Shape(tuple(low for low, _ in self.depths), (self.narrowest,) * len(self.own.widths))

    @property
    def largest_scale(self) -> float:
        """A scale from which on every profile is at its widest."""
        return float(self.widest + self.multiple)

    @cached_property
    def size(self) -> int:
        """How many shapes there are; where channels may only grow, at most so many."""
        widths = (self.widest - self.narrowest) // self.multiple + 1
        count = widths ** len(self.own.widths)
        for low, high in self.depths:
            count *= high - low + 1
        return count

    def neighbours(self, shape: Shape) -> Iterator[Profile]:
        """Local changes: a block more or less in one stage, a quarter more or fewer channels in one stage."""
        for stage, (low, high) in enumerate(self.depths):
            for change in (1, -1):
                if low <= shape.depths[stage] + change <= high:
                    depths = _changed(shape.depths, stage, shape.depths[stage] + change)
                    yield Profile(depths, tuple(map(float, shape.widths)))
        if len(shape.widths) > 1:  # of a single one the budget decides
            for stage, width in enumerate(shape.widths):
                for factor in (1.25, 0.8):
                    step = max(abs(factor - 1) * width, float(self.multiple))
                    changed = width + step if factor > 1 else max(width - step, float(self.narrowest))
                    yield Profile(shape.depths, _changed(tuple(map(float, shape.widths)), stage, changed))

    def trial(self, shape: Shape, seed: int | None = None) -> Trial:
        """The changes of the recipe that make it this shape, and train it with this seed."""
        params: dict[str, Any] = {}
        family = self.family
        if family.depth is not None:
            own = self.model[family.depth]
            params[family.depth] = list(shape.depths) if isinstance(own, list) else shape.depths[0]
        start = 0
        for key in family.widths:
            count = 1 if family.scalar else len(self.model[key])
            part = shape.widths[start : start + count]
            params[key] = part[0] if family.scalar else list(part)
            start += count
        if self.model.get("stem_channels"):
            stem = self.model["stem_channels"] * shape.widths[0] / self.own.widths[0]
            multiple = self.multiple
            params["stem_channels"] = min(max(round(stem / multiple), 1) * multiple, shape.widths[0])
        return Trial({f"model.{key}": json.dumps(value) for key, value in params.items()}, seed)


def _changed(values: tuple[Any, ...], place: int, value: Any) -> tuple[Any, ...]:
    return (*values[:place], value, *values[place + 1 :])


def space_of(recipe: Recipe) -> Space:
    """What may be searched, by the recipe's ``search:`` section and by defaults.

    Raises:
        UsageError: Its family has no shapes to choose from, or the section does not fit it.
    """
    spec, model = recipe.search or SearchSpec(), recipe.model.model_dump(mode="json")
    family = _FAMILIES.get(recipe.model.name) if recipe.model.source == "students" else None
    if family is None or recipe.model.widths or recipe.model.reuse is not None:
        what = f"{recipe.model.source}.{recipe.model.name}" if recipe.model.source != "timm" else recipe.model.name
        why = "it was pruned, layer by layer" if family else "it has no blocks and channels by stage"
        raise UsageError(
            f"recipe {recipe.name}: {what} has no shapes to search: {why}",
            hint=f"a recipe of students: {', '.join(sorted(_FAMILIES))}",
        )
    own = _own(model, family)
    return Space(
        model=model,
        family=family,
        own=own,
        depths=_depths(spec, own, recipe.name),
        **_widths(spec, own, recipe.name),
        rises=model.get("skip") == "pad",
    )


def _own(model: dict[str, Any], family: _Family) -> Shape:
    depth = model[family.depth] if family.depth else []
    widths = ([model[key]] if family.scalar else model[key] for key in family.widths)
    flat = tuple(width for part in widths for width in part)
    return Shape(tuple(depth) if isinstance(depth, list) else (depth,), flat)


def _depths(spec: SearchSpec, own: Shape, name: str) -> tuple[tuple[int, int], ...]:
    if spec.depth is None:
        return ((1, max(_DEEPEST, *own.depths)),) * len(own.depths) if own.depths else ()
    if len(spec.depth) != len(own.depths):
        raise UsageError(
            f"recipe {name}: search.depth has {len(spec.depth)} ranges, its network {len(own.depths)}",
            hint="one range of blocks for each stage, as in --set search.depth=[[1, 4], [1, 4], [1, 4]]",
        )
    return spec.depth


def _widths(spec: SearchSpec, own: Shape, name: str) -> dict[str, int]:
    multiple, most = spec.width.multiple, spec.width.max or max(_WIDEST, 2 * max(own.widths))
    low, high = -(-spec.width.min // multiple) * multiple, most // multiple * multiple
    if low > high:
        raise UsageError(
            f"recipe {name}: no multiple of {multiple} lies between search.width's {spec.width.min} and {most}",
            hint="--set search.width.multiple=8",
        )
    return {"narrowest": low, "widest": high, "multiple": multiple}
