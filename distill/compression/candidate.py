"""One network that a chain tried: the run itself, or a smaller one that was cut from it, and its int8 file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from distill.evaluation.drop import DropVerdict
from distill.evaluation.statistics import Interval

__all__ = ["CompressionCandidate", "Int8File"]


@dataclass(frozen=True)
class Int8File:
    """An int8 file that lost no more than it may.

    Attributes:
        file: Its name in the chain's folder of exports.
        scheme: How it was quantised.
        size_mb: Of the file.
        latency_b1_ms: Median for one image.
        trained: Run folder of the quantisation-aware training that the file is of, from the chain's folder; None:
            it is of the candidate's own run.
    """

    file: str
    sha256: str
    scheme: str
    size_mb: float
    latency_b1_ms: float
    trained: str | None = None


@dataclass(frozen=True)
class CompressionCandidate:
    """What was tried and what came of it.

    Attributes:
        ratio: The share of the run's cost that was to stay; 1 is the run itself.
        run: Its run folder, from the chain's folder where it lies in it.
        drop: Of validation top-1 against the run that the chain began with: the int8 file's where there is one, else
            the network's.
        shipped: None where the network, or every int8 file of it, lost too much.
        why: What was in the way; empty where there is a file.
        seconds: That it took, training and all.
    """

    ratio: float
    run: str
    params: int
    gmacs: float
    drop: DropVerdict
    shipped: Int8File | None
    why: str
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether there is a file that lost no more than it may."""
        return self.shipped is not None

    @property
    def size_mb(self) -> float:
        """Of its file; infinite where there is none."""
        return float("inf") if self.shipped is None else self.shipped.size_mb

    @property
    def latency_b1_ms(self) -> float:
        """Of its file; infinite where there is none."""
        return float("inf") if self.shipped is None else self.shipped.latency_b1_ms

    def to_json(self) -> dict[str, Any]:
        """As a chain's folder keeps it."""
        tree = asdict(self)
        return tree | {"prove": tree["drop"].pop("prove")}

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> CompressionCandidate:
        """Read what :meth:`to_json` gave.

        Raises:
            TypeError, KeyError: It is damaged.
        """
        rest = dict(tree)
        drop, prove, shipped = rest.pop("drop"), rest.pop("prove"), rest.pop("shipped")
        verdict = DropVerdict(**(drop | {"drop": Interval(**drop["drop"]), "prove": prove}))
        return cls(**rest, drop=verdict, shipped=None if shipped is None else Int8File(**shipped))
