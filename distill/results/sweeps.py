"""A sweep's trials, what they say together, and how a swept value is shown. Accuracies are of validation images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

__all__ = ["BestTrial", "GroupRow", "SweepReport", "TrialRow", "shown_value"]

TrialStatus = Literal["finished", "pruned", "failed", "running", "interrupted", "waiting"]


@dataclass(frozen=True)
class TrialRow:
    """One trial.

    Attributes:
        number: From 0, in the order of the grid, or as Optuna numbers it.
        params: The swept keys and their values.
        seed: The training seed, where a grid repeats seeds.
        val_top1: Of its best epoch; of a pruned one the best so far.
        seconds: Of training.
        run: Its run folder, where that is on this machine.
        error: Why it failed.
    """

    number: int
    params: Mapping[str, Any]
    status: TrialStatus
    seed: int | None = None
    val_top1: float | None = None
    epochs: int | None = None
    seconds: float | None = None
    run: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class GroupRow:
    """One combination of a grid over its seeds: mean and sample standard deviation of the finished ones."""

    params: Mapping[str, Any]
    seeds: int
    val_top1: float | None
    val_top1_std: float | None
    seconds: float | None
    runs: tuple[str, ...] = ()


@dataclass(frozen=True)
class BestTrial:
    """What the sweep found.

    Attributes:
        val_top1: Over seeds, the mean.
        val_top1_low: With ``val_top1_high`` its 95% interval over validation images, Wilson's; None where their number
            is not known.
        recipe: A file that ``distill student`` or ``distill teacher-finetune`` takes.
        run: Its run; of several seeds the first.
    """

    params: Mapping[str, Any]
    val_top1: float
    val_top1_std: float | None
    seeds: int
    trial: int
    run: str | None
    recipe: str
    val_top1_low: float | None = None
    val_top1_high: float | None = None


@dataclass(frozen=True)
class SweepReport:
    """All a sweep came to.

    Attributes:
        kind: ``grid`` or ``search``.
        groups: Means over seeds; none where each combination has one run.
        importances: Share of the differences in accuracy that each key explains; None where too little is known.
        importance_method: ``main effects beyond chance`` (epsilon squared, of a full grid) or ``fANOVA``.
        storage: Of a search, where the study lives; without a password.
    """

    name: str
    kind: Literal["grid", "search"]
    folder: str
    trials: tuple[TrialRow, ...]
    groups: tuple[GroupRow, ...] = ()
    best: BestTrial | None = None
    importances: Mapping[str, float] | None = None
    importance_method: str | None = None
    plot: str | None = None
    storage: str | None = None
    notes: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """The document that ``distill sweep --json`` prints."""
        return asdict(self)


def shown_value(value: Any) -> str:
    """A swept value: numbers to four digits, the rest as YAML has it.

    >>> [shown_value(v) for v in (0.0123456, 1e-5, 128, [2, 2], None, True, {"kind": "cosine"})]
    ['0.01235', '1e-05', '128', '[2, 2]', 'null', 'true', '{kind: cosine}']
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {shown_value(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(shown_value(each) for each in value) + "]"
    return str(value)
