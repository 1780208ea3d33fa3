"""The metrics of one model on one set of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Confusion", "EvalResult", "PerClass"]


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
class Confusion:
    """``n`` images of class ``label`` that were taken for class ``predicted``: ``share`` of that class's images."""

    label: str
    predicted: str
    n: int
    share: float


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

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that have images; ``macro_recall`` counts a class that was only predicted, too."""
        recalls = [each.accuracy for each in self.per_class if each.n]
        return sum(recalls) / len(recalls) if recalls else 0.0

    def top_confusions(self, most: int = 20) -> tuple[Confusion, ...]:
        """The commonest mistakes, most frequent first; of equally frequent ones in the order of the classes."""
        labels = [each.label for each in self.per_class]
        found = [
            Confusion(labels[true], labels[guess], n, n / sum(row))
            for true, row in enumerate(self.confusion)
            for guess, n in enumerate(row)
            if true != guess and n > 0
        ]
        return tuple(sorted(found, key=lambda each: -each.n)[:most])

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
