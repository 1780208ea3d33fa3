"""A batch in pieces that are worked through one after another, for one optimiser step."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from distill.data.batches import Batch

__all__ = ["split_batch"]


def split_batch(batch: Batch, pieces: int) -> list[Batch]:
    """``batch`` in at most ``pieces`` parts of nearly equal size."""
    if pieces == 1:
        return [batch]
    bounds = [batch.size * number // pieces for number in range(pieces + 1)]
    return [_slice(batch, slice(start, end)) for start, end in pairwise(bounds) if end > start]


def _slice(batch: Batch, part: slice) -> Batch:
    mix = batch.mix
    if mix is not None:
        mix = replace(mix, partner_labels=mix.partner_labels[part], weight=mix.weight[part])
    return Batch(batch.images[part], batch.labels[part], batch.index[part], batch.rows[part], mix)
