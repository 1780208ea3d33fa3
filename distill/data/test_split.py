"""Test images for data that brings none: a share of every class, set aside for good."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from distill.data.channels import ChannelStats
from distill.data.images import Decoded, Split
from distill.data.stratify import stratified_fraction
from distill.errors import DataError
from distill.recipe.schema import DataSpec

__all__ = ["decoded_set"]


def decoded_set(spec: DataSpec, splits: Mapping[str, Split], facts: Mapping[str, Any], *, note: str | None) -> Decoded:
    """A data set of what was decoded, with test images set aside where it brings none.

    Args:
        facts: ``classes``; ``mean`` and ``std`` of all training images; ``bad`` images by split, which are not among
            ``splits``; ``ignored``, where entries were; ``twins``, where equal images were looked for.
        note: What was decided about it already.

    Raises:
        DataError: No class has two images to spare one.
    """
    stats: ChannelStats | None = ChannelStats(mean=tuple(facts["mean"]), std=tuple(facts["std"]))
    if is_carved := "test" not in splits:
        splits, carved = _with_test_carved(spec, splits)
        note = f"{note}\n{carved}" if note else carved
        stats = None  # those of the images that are left are others
    return Decoded(
        classes=tuple(facts["classes"]),
        train=splits["train"],
        test=splits["test"],
        val=splits.get("val"),
        stats=stats,
        skipped=sum(len(rows) for rows in facts["bad"].values()),
        ignored=facts.get("ignored", 0),
        note=note,
        is_test_carved=is_carved,
        twins=tuple(facts.get("twins", ())),
    )


def _with_test_carved(spec: DataSpec, splits: Mapping[str, Split]) -> tuple[dict[str, Split], str]:
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
            hint="at least two images a class",
        )
    train = np.setdiff1d(np.arange(len(part), dtype=np.int64), test, assume_unique=True)
    note = (
        f"{what}: {len(test):,} of {len(part):,} images are set aside for testing "
        f"(data.test_fraction {spec.test_fraction:g}, data.split_seed {spec.split_seed})"
    )
    return {**splits, "train": part.subset(train), "test": part.subset(test)}, note
