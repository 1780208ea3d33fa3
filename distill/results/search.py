"""What a search by budget comes to: finalists, everything that was tried, the verdict, and what a budget costs."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Finalist", "PricePoint", "SearchReport", "Tried", "budget_text"]


def budget_text(quantity: str, value: float) -> str:
    """A budget as it can be typed: a count with all its digits, as a rounded one may not hold.

    >>> budget_text("params", 1234567.0), budget_text("latency_b1_ms", 0.57)
    ('params <= 1234567', 'latency_b1_ms <= 0.57')
    """
    return f"{quantity} <= {value:.0f}" if quantity == "params" else f"{quantity} <= {value:g}"


@dataclass(frozen=True)
class Tried:
    """One shape that was trained, as far as it got.

    Attributes:
        origin: ``uniform``, ``scaled``, ``sample``, ``local`` or ``random``.
        costs: params, gmacs; size_mb of its file, where a budget had one made; and the latencies that were measured.
        share: Of the budget that it fills most.
        epochs: That it was trained; ``val_top1`` and ``kl`` are from there. None: training failed.
    """

    origin: str
    shape: str
    params: Mapping[str, Any]
    costs: Mapping[str, float | None]
    share: float
    epochs: int
    val_top1: float | None
    kl: float | None


@dataclass(frozen=True)
class Finalist:
    """A shape that was trained to its end with several seeds.

    Attributes:
        kinds: What it stands for: ``search``, ``uniform``, ``random``.
        params: The recipe's keys that make it.
        val_top1, test_top1: Means over the seeds.
        runs: One for each seed.
        chosen: Whether the file is of it.
    """

    kinds: tuple[str, ...]
    shape: str
    params: Mapping[str, Any]
    costs: Mapping[str, float | None]
    share: float
    seeds: int
    val_top1: float
    val_top1_std: float | None
    test_top1: float
    test_top1_std: float | None
    runs: tuple[str, ...]
    chosen: bool = False


@dataclass(frozen=True)
class PricePoint:
    """What a budget buys: the recipe's own proportions at one size.

    Attributes:
        value: Of ``SearchReport.priced``.
        val_top1: None where it was not trained: what is over budget never is.
        gain_per_unit: Points more for each unit more, from the point before.
    """

    shape: str
    value: float
    val_top1: float | None
    gain_per_unit: float | None = None


@dataclass(frozen=True)
class SearchReport:
    """The results of a search.

    Attributes:
        machine: What the latencies were measured on.
        noise: Relative difference between two timings of one network there.
        reference: What the loss is measured against.
        evaluations: How many shapes the search tried, its baselines aside: fewer than were asked for where no other
            that fills the budgets was found, or --hours do not allow more.
        drop: Drop in the file's validation top-1, with interval and verdict; None if there is no file.
        drop_words: The drop in a sentence.
        helped: Whether the search's best is better than the uniform shape beyond chance, as the best of its finalists;
            None if one of the two could not be trained.
        advice: How to interpret the results, in sentences.
        cut: Why channels of the chosen shape were cut; None if they were not.
        missed: Why the command exits with code 3; None if it does not.
        nearest: The nearest budgets that can be met, where known.
        max_params: The recipe's limit, ``model.max_params``; None: no limit.
        priced: The quantity of ``prices``.
    """

    name: str
    folder: str
    recipe: str
    budgets: Mapping[str, float]
    runtime: str
    threads: int
    machine: str
    noise: float | None
    max_drop: float
    prove: bool
    reference: str
    evaluations: int
    search_epochs: int = 0
    random_epochs: int = 0
    finalists: tuple[Finalist, ...] = ()
    tried: tuple[Tried, ...] = ()
    drop: Mapping[str, Any] | None = None
    drop_words: str | None = None
    helped: bool | None = None
    advice: tuple[str, ...] = ()
    cut: str | None = None
    missed: str | None = None
    nearest: Mapping[str, float] | None = None
    max_params: int | None = None
    priced: str | None = None
    prices: tuple[PricePoint, ...] = ()
    file: str | None = None
    best_recipe: str | None = None
    certificate: str | None = None
    plot: str | None = None

    @property
    def ways(self) -> tuple[tuple[str, str], ...]:
        """The options, each with its text, that would make ``nearest`` the budgets; the recipe's own limit is one."""
        found = []
        for name, value in (self.nearest or {}).items():
            if self.budgets.get(name, math.inf) < value:
                found.append(("--budget", budget_text(name, value)))
            if name == "params" and self.max_params is not None and self.max_params < value:
                found.append(("--set", f"model.max_params={value:.0f}"))
        return tuple(found)

    @property
    def hint(self) -> str:
        """What would have met what was ``missed``: other budgets, or a larger loss."""
        if self.ways:
            return f"about {' and '.join(f'{option} {shlex.quote(text)}' for option, text in self.ways)} would do"
        if self.drop is not None:
            enough = math.ceil(1000 * self.drop["high" if self.prove else "estimate"]) / 1000
            if self.max_drop < enough < 1:
                return f"allow more: --max-drop {enough:g}"
        return f"see {self.folder}/result.json"

    def to_json(self) -> dict[str, Any]:
        """The document that ``distill search --json`` prints."""
        return asdict(self)
