"""How far a model's confidence can be trusted: reliability, risk against coverage, the temperature that mends it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Reliability", "ReliabilityBin", "RiskCoverage", "Temperature"]


@dataclass(frozen=True)
class ReliabilityBin:
    """Images whose confidence (the largest probability) lies from ``low`` to below ``high``; the last bin has 1 too.

    ``confidence`` is their mean and ``accuracy`` the share that was right; both None where ``n`` is 0.
    """

    low: float
    high: float
    n: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram (arXiv:1706.04599): 15 bins of equal width, and what they come to.

    Attributes:
        ece: Expected calibration error: the bins' gaps between confidence and accuracy, weighed by their images.
        mce: The widest gap of a bin that has images.
        confidence: Mean over all images; above ``accuracy`` the model is too sure of itself.
        nll: In nats.
    """

    bins: tuple[ReliabilityBin, ...]
    ece: float
    mce: float
    confidence: float
    accuracy: float
    nll: float
    n: int

    def to_json(self) -> dict[str, Any]:
        """For a JSON document."""
        return asdict(self)

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Reliability:
        """What :meth:`to_json` gave.

        Raises:
            KeyError, TypeError: It is damaged.
        """
        return cls(**(dict(tree) | {"bins": tuple(ReliabilityBin(**each) for each in tree["bins"])}))


@dataclass(frozen=True)
class RiskCoverage:
    """What a model errs on the images that it is surest of (arXiv:1705.08500).

    Attributes:
        coverage: Shares of the images that are answered, the surest first; rising to 1.
        risk: Share of errors among those that are answered, for each coverage.
        aurc: Mean risk over every coverage 1/n, 2/n, ... 1: less is better.
        excess_aurc: That of the best order of the same answers subtracted (arXiv:1805.08206): 0 where every error is
            less sure than every right answer.
        coverage_at_risk_1: The largest share that can be answered with at most 1% errors; ``_5`` with 5%; 0 where none.
    """

    coverage: tuple[float, ...]
    risk: tuple[float, ...]
    aurc: float
    excess_aurc: float
    coverage_at_risk_1: float
    coverage_at_risk_5: float
    n: int

    def to_json(self) -> dict[str, Any]:
        """For a JSON document."""
        return asdict(self)

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> RiskCoverage:
        """What :meth:`to_json` gave.

        Raises:
            KeyError, TypeError: It is damaged.
        """
        return cls(**(dict(tree) | {"coverage": tuple(tree["coverage"]), "risk": tuple(tree["risk"])}))


@dataclass(frozen=True)
class Temperature:
    """What logits are divided by so that confidence is accuracy, fitted on ``n`` validation images.

    Attributes:
        value: Above 1 it makes the model less sure. The class that it prefers stays.
        at_bound: Whether the best one lies beyond what is tried (0.05 to 20): every image right, or logits that say
            nothing.
        nll_before: On the images it was fitted on; ``nll_after``, ``ece_before``, ``ece_after`` alike.
    """

    value: float
    at_bound: bool
    n: int
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float

    def to_json(self) -> dict[str, Any]:
        """For a JSON document."""
        return asdict(self)

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Temperature:
        """What :meth:`to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: It is damaged.
        """
        found = cls(**tree)
        if not (isinstance(found.value, int | float) and 0 < found.value < float("inf")):
            raise ValueError(f"no temperature: {found.value!r:.60}")
        return found
