"""Test images for data that brings none: a share of every class, set aside for good."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from distill.data.images import Split
from distill.data.stratify import stratified_fraction
from distill.errors import DataError
from distill.recipe.schema import DataSpec

__all__ = ["with_test_carved"]


def with_test_carved(spec: DataSpec, splits: Mapping[str, Split]) -> tuple[dict[str, Split], str]:
    """Set test images aside where the data brings none: the same ones for each recipe with this seed and fraction.

    Raises:
        DataError: No class has two images to spare one.
    """
    part = splits["train"]
    folder = spec.name == "folder"
    what = f"{spec.place} has no test/" if folder else f"{spec.place} has no test images"
    test = stratified_fraction(part.labels, spec.test_fraction, "data", "test", spec.split_seed)
    if len(test) == 0:
        raise DataError(
            f"{what}{' folder' if folder else ''}, and no class has an image to spare for testing",
            hint="at least two images a class; or --set data.test_fraction=0.2",
        )
    train = np.setdiff1d(np.arange(len(part), dtype=np.int64), test, assume_unique=True)
    note = (
        f"{what}: {len(test):,} of {len(part):,} images are set aside for testing "
        f"(data.test_fraction {spec.test_fraction:g}, data.split_seed {spec.split_seed})"
    )
    return {**splits, "train": part.subset(train), "test": part.subset(test)}, note
