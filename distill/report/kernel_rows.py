"""What ``distill doctor --recipe`` found, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from distill.devices.layer_error import KernelConfig, LayerTestResult, Outcome

__all__ = ["KernelCheck", "KernelRow", "KernelTrial", "worst"]

_WORST: tuple[Outcome, ...] = ("hangs", "crashes", "wrong", "right")


@dataclass(frozen=True)
class KernelTrial:
    """One layer, tried in one way.

    Attributes:
        used: Whether the run would compute so.
    """

    used: bool
    setting: KernelConfig
    result: LayerTestResult

    def to_json(self) -> dict[str, Any]:
        """One flat object; ``setting`` is that of its fields in words."""
        return {"used": self.used, "setting": str(self.setting)} | asdict(self.setting) | asdict(self.result)


@dataclass(frozen=True)
class KernelRow:
    """One distinct layer.

    Attributes:
        names: The modules that hold it.
        layer: As in ``conv2d 1x1, stride 2, 4 -> 8, 16x16``.
        batches: With how many inputs at once it was tried.
        set: What to set so that this layer is right; None where it is, or where nothing that was tried helps.
        kept_contiguous: Whether distill gives it contiguous images whatever ``train.channels_last`` says.
    """

    names: tuple[str, ...]
    layer: str
    batches: tuple[int, ...]
    trials: tuple[KernelTrial, ...]
    set: str | None = None
    kept_contiguous: bool = False

    @property
    def outcome(self) -> Outcome:
        """The worst of what the run would use."""
        return worst(trial.result.outcome for trial in self.trials if trial.used)

    def to_json(self) -> dict[str, Any]:
        """Its fields and its outcome."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {"outcome": self.outcome} | fields


@dataclass(frozen=True)
class KernelCheck:
    """Whether this machine's kernels get a recipe's network right.

    Attributes:
        device: What the CPU is called.
        channels_last, threads, precision: What the run resolves them to.
        heap_check: Whether glibc looked at the heap at every call.
        set: What to set so that every layer is right; None where all are, or where nothing that was tried helps.
    """

    recipe: str
    device: str
    channels_last: bool
    threads: int
    precision: str
    heap_check: bool
    layers: tuple[KernelRow, ...]
    versions: dict[str, str]
    seconds: float
    set: str | None = None

    @property
    def is_right(self) -> bool:
        """Whether all that the run would use is right."""
        return all(row.outcome == "right" for row in self.layers)

    def to_json(self) -> dict[str, Any]:
        """The document that ``distill doctor --recipe R --json`` prints."""
        return {"right": self.is_right} | {name: getattr(self, name) for name in self.__dataclass_fields__}


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """The worst of some outcomes; right where there is none."""
    return min(outcomes, key=_WORST.index, default="right")
