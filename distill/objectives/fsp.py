"""Flow of solution procedure: how channels of one stage go together with those of the next."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from distill.data.batches import Batch
from distill.errors import RecipeError
from distill.objectives.objective import NetworkOutput, Term, TermContext
from distill.objectives.pairs import StagePairs, as_small, no_autocast, require_maps
from distill.recipe.objectives import FSPTerm

__all__ = ["FSP", "fsp_loss"]


class FSP(Term):
    """``fsp_weight * sum over consecutive stages of fsp_loss``.

    Raises:
        RecipeError: One stage alone, or stages of other widths than the teacher's.
    """

    def __init__(self, spec: FSPTerm, context: TermContext) -> None:
        super().__init__()
        self._pairs, self.weights = StagePairs(spec, context), {"fsp": spec.fsp_weight}
        self.requires = self._pairs.requires
        require_maps(spec, self._pairs)
        if len(self._pairs.names) < 2:
            raise RecipeError("objective fsp relates one stage to the next: student and teacher share one alone")
        for (ours, theirs), (own, other) in zip(self._pairs.names, self._pairs.shapes, strict=True):
            if own[0] != other[0]:
                raise RecipeError(
                    f"objective fsp: the student's {ours} has {own[0]} channels, the teacher's {theirs} {other[0]}: "
                    "the products of channels have no common shape",
                    hint="name stages as wide as the teacher's (objective.features), or take at, nst or fitnet",
                )

    def losses(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        ours, theirs = zip(*self._pairs.of(student, teacher), strict=True)
        found = [fsp_loss(own, other) for own, other in zip(pairwise(ours), pairwise(theirs), strict=True)]
        return {"fsp": torch.stack(found).sum()}


def fsp_loss(student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor]) -> Tensor:
    """Mean square of the difference of FSP matrices: the mean products of two stages' channels (Yim et al., CVPR 2017).

    Shapes:
        student: ``(B, C, H, W)`` and ``(B, D, H', W')`` float, of one stage and the next; gradient flows. The larger
            map is averaged to the smaller one's size.
        teacher: The same channels; treated as constant.
        returns: ``()`` float32.

    >>> ones = torch.ones(1, 2, 4, 4)
    >>> fsp_loss((ones, ones), (ones, 3 * ones)).item()
    4.0
    """
    with no_autocast(student[0]):
        ours, theirs = _products(*(each.float() for each in student)), _products(*(each.float() for each in teacher))
        return (ours - theirs.detach()).square().mean()


def _products(one: Tensor, other: Tensor) -> Tensor:
    one, other = (each.flatten(2) for each in as_small(one, other))
    return one @ other.transpose(1, 2) / one.shape[2]
