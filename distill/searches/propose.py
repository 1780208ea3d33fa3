"""Where candidates come from: the recipe's own shape scaled, a sample that leaves no corner out, chance. No torch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from distill.searches.space import Profile, Shape, Space

__all__ = ["random_profiles", "sampled", "scalings", "uniform"]

_DEPTHS = (1.0, 0.5, 1.5)
_SPREAD = 8.0  # of a sample's channels from the recipe's proportions: the widest stage against the narrowest
_MAX_DRAWS = 2000  # profiles that are drawn before a search knows that it has seen the space
_CHANCE_SEED = 1


def uniform(space: Space) -> Iterator[Profile]:
    """The recipe's own proportions: at its own depth, then, for where that does not fit, shallower and shallower."""
    for eighths in range(8, -1, -1):
        yield _deep(space, eighths / 8)


def scalings(space: Space) -> Iterator[Profile]:
    """The recipe's own proportions at its own depth, at half of it, and half as deep again."""
    for factor in _DEPTHS:
        yield _deep(space, factor)


def _deep(space: Space, factor: float) -> Profile:
    depths = tuple(int(factor * depth + 0.5) for depth in space.own.depths)
    return Profile(space.settled(Shape(depths, space.own.widths)).depths, tuple(map(float, space.own.widths)))


def sampled(space: Space) -> Iterator[Profile]:
    """A Halton sequence over blocks and the relation of channels: any first part of it is spread out."""
    from scipy.stats import qmc  # half a second to import

    stages = len(space.depths) + len(space.own.widths)
    sequence = qmc.Halton(d=stages, scramble=False)
    sequence.fast_forward(1)  # the first point is a corner
    for point in sequence.random(_MAX_DRAWS):
        shares = point[len(space.depths) :]
        ratios = (width * _SPREAD ** (share - 0.5) for width, share in zip(space.own.widths, shares, strict=True))
        yield Profile(_depths(space, point), tuple(map(float, ratios)))


def random_profiles(space: Space) -> Iterator[Profile]:
    """Blocks and channels by chance alone, each stage of its own; channels evenly over their logarithm."""
    chance = np.random.default_rng(_CHANCE_SEED)
    for _ in range(_MAX_DRAWS):
        point = chance.random(len(space.depths))
        widths = space.narrowest * (space.widest / space.narrowest) ** chance.random(len(space.own.widths))
        yield Profile(_depths(space, point), tuple(map(float, widths)))


def _depths(space: Space, point: np.ndarray) -> tuple[int, ...]:
    ranges = zip(space.depths, point[: len(space.depths)], strict=True)
    return tuple(int(low + share * (high - low + 1)) for (low, high), share in ranges)
