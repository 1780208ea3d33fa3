"""The pydantic base every part of a recipe shares, and the number types that recipes use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Fraction", "Monitor", "NonNegative", "Picks", "Positive", "PositiveInt", "Spec", "lower_is_better", "worth"]


class Spec(BaseModel):
    """A frozen part of a recipe: strict types, unknown keys refused, no NaN and no infinity."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0, le=1e9)]
NonNegative = Annotated[float, Field(ge=0.0, le=1e9)]
Monitor = Literal["val_top1", "val_loss", "val_balanced_accuracy", "val_macro_f1"]
Picks = Literal[Monitor, "last"]  # of epochs the one whose weights are shipped
PositiveInt = Annotated[int, Field(ge=1, le=1_000_000_000)]


def worth(metrics: Mapping[str, float], picks: Picks) -> float | None:
    """What an epoch's numbers are worth to what picks one, larger is better; None where they do not tell.

    >>> worth({"epoch": 3, "val_loss": 0.5}, "val_loss"), worth({"epoch": 3, "val_loss": 0.5}, "last")
    (-0.5, 3)
    """
    if picks == "last":
        return metrics.get("epoch")
    value = metrics.get(picks)
    return -value if value is not None and lower_is_better(picks) else value


def lower_is_better(monitor: Monitor) -> bool:
    """Whether less of a monitored number is better: of a loss."""
    return monitor == "val_loss"
