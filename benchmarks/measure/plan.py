"""What is measured, in which order, and what must have been measured on the same kind of CPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["GAINS", "SOONER", "STAGES", "TEACHERS", "Gain", "Item", "Stage", "arms", "items"]


@dataclass(frozen=True)
class Stage:
    """Recipes that are compared with one another, seed by seed.

    Attributes:
        seeds: So many, from ``first`` on.
    """

    recipes: tuple[str, ...]
    seeds: int = 1
    first: int = 0


@dataclass(frozen=True, order=True)
class Item:
    """One run: a recipe with a seed."""

    recipe: str
    seed: int

    def __str__(self) -> str:
        return f"{self.recipe}-{self.seed}"


@dataclass(frozen=True)
class Gain:
    """A taught recipe and the same student from labels alone.

    Attributes:
        looked_after: So many seeds had been looked at before the others were asked for; None: no look before the end.
    """

    taught: str
    alone: str
    looked_after: int | None = None


STAGES = (
    Stage(("fast_cifar10_soft",), seeds=3),
    Stage(("fast_small_cifar10", "fast_small_cifar10_kd", "fast_small_cifar10_soft_kd"), seeds=5),
    Stage(("fast_small_cifar100", "fast_small_cifar100_kd"), seeds=5),
    Stage(("lite0_cifar10",)),
    Stage(("fast_cifar10_short", "fast_cifar10_short_kd", "fast_cifar10_short_soft_kd"), seeds=4),
    Stage(("fast_cifar10_short", "fast_cifar10_short_lite2_kd"), seeds=5, first=4),
    Stage(("few_lite0_cifar10",)),
    Stage(("few_fast_cifar10", "few_fast_cifar10_kd"), seeds=3),
    Stage(("few_lite0_cifar100",)),
    Stage(("few_fast_cifar100", "few_fast_cifar100_kd"), seeds=3),
    Stage(("fast_cifar10_long",)),
    Stage(("fast_cifar10_long", "fast_cifar10_long_kd"), seeds=4, first=1),
    Stage(("fast_cifar100_long", "fast_cifar100_long_kd"), seeds=3),
    Stage(("fast_cifar10", "fast_cifar10_kd"), seeds=5),
    Stage(("lite2_cifar10",)),
    Stage(("lite0_cifar100",)),
    Stage(("lite2_cifar100",)),
    Stage(("fast_cifar100_short", "fast_cifar100_short_lite2_kd"), seeds=4),
    Stage(("fast_cifar100", "fast_cifar100_kd", "fast_cifar100_lite2_kd"), seeds=3),
    Stage(("resnet9_cifar10",)),
    Stage(("lenet_cifar10",)),
    Stage(("cnn_cifar10",)),
    Stage(("r222_adam", "r222_adam_kd"), seeds=6),
    Stage(("r222_adam_constant",)),
    Stage(("r222_sgd",)),
    Stage(("r222_sgd_constant",)),
    Stage(("r222_adam_dropout",)),
    Stage(("r222_adam_augment", "r222_adam_augment_kd"), seeds=4),
    Stage(("resnet20_cifar10",)),
    Stage(("grouped_resnet_cifar100",)),
)
GAINS = (
    Gain("fast_small_cifar10_kd", "fast_small_cifar10"),
    Gain("fast_small_cifar10_soft_kd", "fast_small_cifar10"),
    Gain("fast_small_cifar100_kd", "fast_small_cifar100", looked_after=3),
    Gain("fast_cifar10_short_kd", "fast_cifar10_short"),
    Gain("fast_cifar10_short_soft_kd", "fast_cifar10_short"),
    Gain("fast_cifar10_short_lite2_kd", "fast_cifar10_short"),
    Gain("few_fast_cifar10_kd", "few_fast_cifar10"),
    Gain("few_fast_cifar100_kd", "few_fast_cifar100"),
    Gain("fast_cifar10_kd", "fast_cifar10"),
    Gain("fast_cifar10_long_kd", "fast_cifar10_long"),
    Gain("fast_cifar100_kd", "fast_cifar100"),
    Gain("fast_cifar100_long_kd", "fast_cifar100_long"),
    Gain("fast_cifar100_lite2_kd", "fast_cifar100"),
    Gain("fast_cifar100_short_lite2_kd", "fast_cifar100_short"),
    Gain("r222_adam_kd", "r222_adam", looked_after=3),
    Gain("r222_adam_augment_kd", "r222_adam_augment"),
)

# Students of several teachers.
_THREE = tuple(Item("fast_cifar10", seed) for seed in range(3))
_SOFT = tuple(Item("fast_cifar10_soft", seed) for seed in range(3))
TEACHERS = {"fast_cifar10_kd": _THREE, "fast_cifar10_short_kd": _THREE, "fast_cifar10_short_soft_kd": _SOFT}

# Students whose teachers are asked in bf16 where that is native: a bank in less than half the time (docs/banks.md).
SOONER = (*TEACHERS, "fast_small_cifar10_soft_kd")


def items(stages: tuple[Stage, ...] = STAGES) -> Iterator[Item]:
    """The runs in the order in which they are made: all arms of a seed before the next seed."""
    for stage in stages:
        for seed in range(stage.first, stage.first + stage.seeds):
            for recipe in stage.recipes:
                yield Item(recipe, seed)


def arms(item: Item, stages: tuple[Stage, ...] = STAGES) -> list[Item]:
    """The runs that ``item`` is compared with, pair by pair: they must have been made on its kind of CPU."""
    together = next(stage.recipes for stage in stages if item in items((stage,)))
    return [Item(recipe, item.seed) for recipe in together if recipe != item.recipe]
