"""The metrics of one model on one set of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["EvalResult", "PerClass"]


@dataclass(frozen=True)
class PerClass:
    """One class. All are fractions of 1, and 0 where there was nothing to count (a class without test images).

    ``accuracy`` is the fraction of the class's own images that were recognised, which is its recall.
    """

    label: str
    precision: float
    recall: float
    f1: float
    accuracy: float
    n: int


@dataclass(frozen=True)
class EvalResult:
    """The metrics of one model on one set of ``n`` images.

    ``top1`` and ``top5`` are fractions of all images; ``top5`` is None for fewer than 10 classes. The macro averages
    weigh every class alike that occurs among labels or predictions. ``nll`` is in nats. ``ece`` is the expected
    calibration error (arXiv:1706.04599), 15 bins of equal width. ``confusion[i][j]`` counts images of class i taken for
    class j.
    """

    top1: float
    top5: float | None
    macro_precision: float
    macro_recall: float
    macro_f1: float
    nll: float
    ece: float
    n: int
    per_class: tuple[PerClass, ...]
    confusion: tuple[tuple[int, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """For a JSON document."""
        return asdict(self)

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> EvalResult:
        """What :meth:`to_json` gave.

        Raises:
            KeyError, TypeError: It is damaged.
        """
        per_class = tuple(PerClass(**entry) for entry in tree["per_class"])
        confusion = tuple(tuple(row) for row in tree["confusion"])
        return cls(**(dict(tree) | {"per_class": per_class, "confusion": confusion}))
