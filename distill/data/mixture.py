"""Batches with a fixed share of images without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distill.data import streams
from distill.data.images import UNLABELLED
from distill.data.splits import Splits
from distill.data.views import View, epoch_order
from distill.errors import UsageError
from distill.recipe import Recipe
from distill.text import counted

__all__ = ["Mixture", "labels_per_image", "mixture_of"]


@dataclass(frozen=True)
class Mixture:
    """Labelled images, each once an epoch, and among them unlabelled ones, as many as their share of a batch.

    Attributes:
        labelled: How many there are; they are the first positions of the split, and the unlabelled ones the last.
        share: Of a batch, of unlabelled images; rounded to whole images, one of each kind at least.
    """

    labelled: int
    unlabelled: int
    share: float
    batch_size: int

    @classmethod
    def of(cls, recipe: Recipe, *, labelled: int, unlabelled: int) -> Mixture:
        """What the batches of ``recipe`` hold of so many images."""
        return cls(labelled, unlabelled, recipe.data.unlabelled_share, recipe.train.batch_size)

    @property
    def per_batch(self) -> int:
        """Unlabelled images of a whole batch."""
        if not self.unlabelled:
            return 0
        return min(max(round(self.batch_size * self.share), 1), self.batch_size - 1)

    @property
    def images(self) -> int:
        """How many an epoch shows, repeats counted."""
        whole, rest = divmod(self.labelled, self.batch_size - self.per_batch)
        return whole * self.batch_size + rest + self._beside(rest)

    def order(self, seed: int, epoch: int, *, world_size: int = 1) -> np.ndarray:
        """Positions in the order of an epoch, int64 ``(images,)``: each batch of them holds its share.

        Unlabelled images go on from epoch to epoch until all were shown, and then begin anew in another order. A batch
        holds the same images for any number of processes; each process, and each piece of its part, has its share.
        """
        ours = epoch_order(seed, epoch, self.labelled)
        if not self.unlabelled:
            return ours
        per_epoch = self.images - self.labelled
        others = self._stream(seed, epoch * per_epoch, per_epoch)
        own, theirs, batches = self.batch_size - self.per_batch, self.per_batch, []
        for number in range(-(-self.labelled // own)):
            mine = ours[number * own : (number + 1) * own]
            beside = others[number * theirs : number * theirs + self._beside(len(mine))]
            batches.append(_dealt(mine, beside, world_size))
        return np.concatenate(batches)

    def _beside(self, labelled: int) -> int:
        """Unlabelled images of a batch with so many labelled ones."""
        return round(labelled * self.per_batch / (self.batch_size - self.per_batch))

    def _stream(self, seed: int, start: int, count: int) -> np.ndarray:
        """Positions of unlabelled images, from the endless row of all orders of them."""
        at = np.arange(start, start + count, dtype=np.int64)
        rounds, places = np.divmod(at, self.unlabelled)
        taken = np.empty(count, dtype=np.int64)
        for number in np.unique(rounds):
            here = rounds == number
            taken[here] = streams.permutation(self.unlabelled, "unlabelled", seed, int(number))[places[here]]
        return self.labelled + taken


def _dealt(mine: np.ndarray, beside: np.ndarray, world_size: int) -> np.ndarray:
    """One batch, both kinds evenly spread over what each process takes: every ``world_size``-th position."""
    count = len(mine) + len(beside)
    ends = np.arange(1, count + 1, dtype=np.int64) * len(beside) // count
    is_beside = np.diff(ends, prepend=0) > 0
    spread = np.empty(count, dtype=np.int64)
    spread[is_beside], spread[~is_beside] = beside, mine
    batch = np.empty(count, dtype=np.int64)
    batch[np.concatenate([np.arange(rank, count, world_size) for rank in range(world_size)])] = spread
    return batch


def labels_per_image(labels: np.ndarray, view: View, steps: Sequence[np.ndarray]) -> np.ndarray | None:
    """How many labels the images of each step have on average; a mixed one has the share of those that are there.

    Args:
        steps: Positions of the images of each, over all processes.

    Shapes:
        labels: ``(N,)`` int64.
        returns: ``(steps,)`` float32 from 0 to 1; None where every image has its label.
    """
    has = (labels != UNLABELLED).astype(np.float64)
    if has.all():
        return None
    if view.partner is not None:
        assert view.mix_weight is not None, "mixes"
        has = view.mix_weight * has + (1.0 - view.mix_weight) * has[view.partner]
    return np.array([has[at].mean() for at in steps], dtype=np.float32)


def mixture_of(recipe: Recipe, splits: Splits) -> Mixture:
    """What the batches of ``recipe`` hold of these images.

    Raises:
        UsageError: A batch takes more unlabelled images than there are.
    """
    unlabelled = 0 if splits.unlabelled is None else splits.unlabelled.count
    mixture = Mixture.of(recipe, labelled=len(splits.train) - unlabelled, unlabelled=unlabelled)
    if mixture.per_batch > unlabelled:
        raise UsageError(
            f"data.unlabelled has {counted(unlabelled, 'image')}, and a batch of {recipe.train.batch_size:,} takes "
            f"{mixture.per_batch:,} (data.unlabelled_share {recipe.data.unlabelled_share:g})",
            hint="a smaller share or batch: --set data.unlabelled_share=0.25",
        )
    return mixture
