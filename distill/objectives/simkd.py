"""SimKD: a student that reuses its teacher's classifier need only learn what enters it."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.data.batches import Batch
from distill.errors import RecipeError
from distill.objectives.fitnet import hint_loss
from distill.objectives.objective import NetworkOutput, Term, TermContext
from distill.objectives.pairs import StagePairs, as_small
from distill.recipe.objectives import SimKDTerm

__all__ = ["SimKD"]


class SimKD(Term):
    """``simkd_weight * mean square of the difference`` of projected features (Chen et al., arXiv:2203.14001).

    The projector is part of the student (:mod:`distill.models.reuse`): it ships, and is counted.

    Raises:
        RecipeError: The features have other widths than the teacher's.
    """

    def __init__(self, spec: SimKDTerm, context: TermContext) -> None:
        super().__init__()
        self._pairs, self.weights = StagePairs(spec, context), {"simkd": spec.simkd_weight}
        self.requires = self._pairs.requires
        for (ours, theirs), shapes in zip(self._pairs.names, self._pairs.shapes, strict=True):
            if shapes[0][0] != shapes[1][0] or len(shapes[0]) != len(shapes[1]):
                raise RecipeError(
                    f"objective simkd: the student's {ours} is {shapes[0]}, the teacher's {theirs} {shapes[1]}",
                    hint="leave out objective.features: what enters the two poolings is compared",
                )

    def losses(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        pairs = [as_small(ours, theirs) for ours, theirs in self._pairs.of(student, teacher)]
        return {"simkd": torch.stack([hint_loss(ours, theirs) for ours, theirs in pairs]).sum()}
