"""What a shape costs, and how much of its budgets that fills. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

__all__ = ["LATENCIES", "Budgets", "Costs", "filled", "fits"]

Budgets = Mapping[str, float]
"""The most of a quantity, by its name: one that :class:`Costs` has."""

LATENCIES = {"latency_b1_ms": 1, "latency_b32_ms": 32}
"""Batch sizes by the name of their latency."""


@dataclass(frozen=True)
class Costs:
    """What a network costs: latencies are medians in milliseconds; None what was not asked for, and so not measured."""

    params: int
    gmacs: float
    size_mb: float | None
    latency_b1_ms: float | None = None
    latency_b32_ms: float | None = None

    def of(self, quantity: str) -> float:
        """One of them.

        Raises:
            ValueError: It was not measured.
        """
        value = getattr(self, quantity)
        if value is None:
            raise ValueError(f"{quantity} was not measured")
        return float(value)

    def times(self, factors: Mapping[str, float]) -> Costs:
        """With some of them multiplied."""
        changed: dict[str, Any] = {name: self.of(name) * factor for name, factor in factors.items()}
        return replace(self, **changed)

    def to_json(self) -> dict[str, Any]:
        """As files keep it."""
        return asdict(self)

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Costs:
        """Read what :meth:`to_json` gave.

        Raises:
            KeyError, TypeError: It is damaged.
        """
        return cls(**{each.name: tree[each.name] for each in fields(cls)})


def filled(costs: Costs, budgets: Budgets) -> float:
    """The largest share of a budget that is used: 1 is all of one, above 1 does not fit."""
    return max(costs.of(quantity) / limit for quantity, limit in budgets.items())


def fits(costs: Costs, budgets: Budgets) -> bool:
    """Whether every budget holds."""
    return filled(costs, budgets) <= 1.0
