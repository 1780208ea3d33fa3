"""What a certificate promises, and whether that holds: budgets, and the most accuracy that may be lost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from distill.certificate.measure import right_of
from distill.errors import UsageError
from distill.evaluation.drop import DropVerdict, judge_drop
from distill.evaluation.statistics import Interval
from distill.results.certificate import Drop, Promise

__all__ = ["QUANTITIES", "budgets_of", "drop_holds", "judged_again", "promises_of", "verdict_of_drop"]

QUANTITIES = ("params", "gmacs", "size_mb", "latency_b1_ms", "latency_b32_ms")


def budgets_of(texts: Sequence[str]) -> dict[str, float]:
    """Read budgets, as ``latency_b1_ms <= 2.0``.

    Raises:
        UsageError: One is none, or two are over one quantity.
    """
    budgets: dict[str, float] = {}
    for text in texts:
        name, found, limit = (part.strip() for part in text.partition("<="))
        hint = f"as in --budget 'latency_b1_ms <= 2'; over {', '.join(QUANTITIES)}"
        if not found or name not in QUANTITIES:
            raise UsageError(f"--budget {text!r}: a quantity, <=, and a number are wanted", hint=hint)
        if name in budgets:
            raise UsageError(f"--budget {text!r}: {name} has a budget already", hint="name each quantity once")
        budgets[name] = _limit(limit, f"--budget {text!r}", hint)
    return budgets


def _limit(text: str, what: str, hint: str) -> float:
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    if not (math.isfinite(limit) and limit > 0):
        raise UsageError(f"{what}: {text!r} is no number above 0", hint=hint)
    return limit


def promises_of(budgets: Mapping[str, float], measured: Mapping[str, float]) -> tuple[Promise, ...]:
    """Each budget with what was measured.

    Raises:
        UsageError: One is over a quantity that is none.
    """
    if unknown := [name for name in budgets if name not in measured]:
        raise UsageError(f"no budget can be over {', '.join(unknown)}", hint=f"there are {', '.join(QUANTITIES)}")
    return tuple(Promise(quantity=name, limit=limit, measured=measured[name]) for name, limit in budgets.items())


def verdict_of_drop(drop: Drop) -> DropVerdict:
    """A drop as everything else here judges one."""
    interval = Interval(drop.estimate, drop.low, drop.high)
    return DropVerdict(interval, drop.reference_top1, drop.allowed or 0.0, drop.images, drop.needed, drop.prove)


def judged_again(drop: Drop, right: np.ndarray) -> DropVerdict:
    """The same drop with other answers of the file, ``(N,)`` bool."""
    return judge_drop(right, right_of(drop.right, drop.images), allowed=drop.allowed or 0.0, prove=drop.prove)


def drop_holds(drop: Drop, verdict: DropVerdict, *, decides: bool) -> bool:
    """Whether "at most so much is lost" stands.

    The images that decide must pass; others, as test images where validation images decide, must not refute it.
    """
    if drop.allowed is None:
        return True
    return verdict.passes if decides else verdict.word != "refuted"
