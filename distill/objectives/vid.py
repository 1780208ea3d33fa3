"""Variational information distillation: how much of its teacher's features a student's tell."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.data.batches import Batch
from distill.errors import RecipeError
from distill.objectives.objective import NetworkOutput, Term, TermContext
from distill.objectives.pairs import StagePairs, as_small, no_autocast
from distill.recipe.objectives import VIDTerm

__all__ = ["VID", "vid_loss"]

_FIRST_VARIANCE = 5.0  # of every channel before training, as in the authors' code
_EPS = 1e-5


class VID(Term):
    """``vid_weight * sum over stages of vid_loss``."""

    def __init__(self, spec: VIDTerm, context: TermContext) -> None:
        super().__init__()
        self._pairs, self.weights = StagePairs(spec, context), {"vid": spec.vid_weight}
        self.requires = self._pairs.requires
        self.guesses = nn.ModuleList(_Guess(*shapes) for shapes in self._pairs.shapes)

    def losses(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        found = []
        for guess, (ours, theirs) in zip(self.guesses, self._pairs.of(student, teacher), strict=True):
            with no_autocast(ours):
                small, target = as_small(ours, theirs)
                mean, variance = guess(small)
                found.append(vid_loss(mean, variance, target))
        return {"vid": torch.stack(found).sum()}


class _Guess(nn.Module):
    """What a teacher's features are expected to be, and how surely: a mean for each place, a variance a channel."""

    def __init__(self, ours: tuple[int, ...], theirs: tuple[int, ...]) -> None:
        super().__init__()
        if len(ours) != 3 or len(theirs) != 3:
            raise RecipeError(
                f"objective vid compares maps, not features of shape {ours} with {theirs}",
                hint="name stages that leave maps: objective.features",
            )
        width = theirs[0]
        self.mean = nn.Sequential(
            nn.Conv2d(ours[0], width, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 1, bias=False),
        )
        self.scale = nn.Parameter(torch.full((width, 1, 1), math.log(math.expm1(_FIRST_VARIANCE - _EPS))))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.mean(features), F.softplus(self.scale) + _EPS


def vid_loss(mean: Tensor, variance: Tensor, teacher: Tensor) -> Tensor:
    """Mean of a Gaussian's negative log-likelihood, without its constant (Ahn et al., arXiv:1904.05835).

    Shapes:
        mean: ``(B, C, H, W)`` float32, what the student makes of its features; gradient flows.
        variance: ``(C, 1, 1)`` above 0; gradient flows.
        teacher: ``(B, C, H, W)``; treated as constant.
        returns: ``()`` float32; may be negative.

    >>> z = torch.zeros(2, 1, 1, 1)
    >>> vid_loss(z, torch.ones(1, 1, 1), z + 2.0).item()
    2.0
    """
    return 0.5 * ((mean - teacher.detach()).square() / variance + variance.log()).mean()
