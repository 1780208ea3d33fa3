"""What a network that is cut may cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import nn

from distill.errors import UsageError
from distill.evaluation.cost import model_cost
from distill.evaluation.latency import time_one_image

__all__ = ["CutLimit", "CutQuantity"]

CutQuantity = Literal["macs", "params", "latency_ms"]


@dataclass(frozen=True)
class CutLimit:
    """The most that a network may cost once it is cut.

    Attributes:
        quantity: ``macs``: the share of the network's multiply-accumulates; ``params``: parameters; ``latency_ms``:
            milliseconds for one image, in PyTorch on a CPU.
        most: Of that.
    """

    quantity: CutQuantity
    most: float

    def __post_init__(self) -> None:
        """Refuse what no network can be cut to.

        Raises:
            UsageError: It names the option.
        """
        if self.quantity == "macs" and not 0 < self.most < 1:
            raise UsageError(f"--macs {self.most:g} is a share of what the run's network has", hint="half: --macs 0.5")
        if self.quantity == "params" and self.most < 1:
            raise UsageError(f"--params {self.most:g}: a network has some", hint="--params 500000")
        if self.quantity == "latency_ms" and not 0 < self.most < math.inf:
            raise UsageError(f"--latency-ms {self.most:g} is no time", hint="--latency-ms 2.5")

    @classmethod
    def of(cls, *, macs: float | None, params: int | None, latency_ms: float | None) -> CutLimit:
        """The one that is given.

        Raises:
            UsageError: None is, or several are.
        """
        all_of: dict[CutQuantity, float | None] = {"macs": macs, "params": params, "latency_ms": latency_ms}
        given = {name: value for name, value in all_of.items() if value is not None}
        if len(given) != 1:
            raise UsageError(
                "one goal is wanted: --macs, --params or --latency-ms" + (f", not {len(given)}" if given else ""),
                hint="half the multiply-accumulates: --macs 0.5",
            )
        ((quantity, most),) = given.items()
        return cls(quantity, most)

    def __str__(self) -> str:
        """As the user gives it."""
        return f"--{self.quantity.replace('_', '-')} {self._number}"

    @property
    def label(self) -> str:
        """For the name of a run."""
        if self.quantity == "macs":
            return f"macs{100 * self.most:g}".replace(".", "_")
        return f"params{self._number}" if self.quantity == "params" else f"{self._number}ms".replace(".", "_")

    @property
    def _number(self) -> str:
        return f"{self.most:.0f}" if self.quantity == "params" else f"{self.most:g}"

    def fits(self, network: nn.Module, input_size: int) -> Callable[[nn.Module], bool]:
        """Whether what was cut from ``network`` costs no more."""
        if self.quantity == "latency_ms":
            return lambda cut: time_one_image({"cut": cut}, input_size)["cut"].median_ms <= self.most
        if self.quantity == "params":
            return lambda cut: model_cost(cut, input_size).params <= self.most
        most = self.most * model_cost(network, input_size).macs
        return lambda cut: model_cost(cut, input_size).macs <= most
