"""Whether a network may be asked about a split: not where that may hold what taught it, nor about other classes."""

from __future__ import annotations

from distill.data.splits import Splits
from distill.errors import DataError
from distill.models.classifier import Classifier
from distill.recipe.schema import DataSpec

__all__ = ["refuse_drawn_anew", "require_classes"]


def refuse_drawn_anew(splits: Splits, split: str, spec: DataSpec, place: str, trained_on: str | None) -> None:
    """Ask nothing about a split that may hold images which the asked has learned from.

    Args:
        place: Of the run or file, and ``trained_on`` as :meth:`Splits.is_drawn_anew` takes it.

    Raises:
        DataError: It may.
    """
    if splits.is_drawn_anew(split, trained_on):
        name = "test" if split == "test" else "validation"
        raise DataError(
            f"{spec.place} holds other images than {place} was trained on: its {name} images are drawn anew from "
            "what is there now, and it may have learned from some of them",
            hint=f"restore the images, or train again; {name} images in a folder of their own ({split}/) stay apart",
        )


def require_classes(splits: Splits, spec: DataSpec, model: Classifier) -> None:
    """Refuse data that has other classes than a network knows, or has them in another order.

    Raises:
        DataError: It has.
    """
    if splits.dataset.classes != model.classes:
        raise DataError(
            f"{spec.place}: the classes are not those that {model.place} was trained on",
            hint="point data.root at the data set of that run" if spec.code is None else None,
        )
