"""Knowledge review: a student's early features, joined with its later ones, learn from a teacher's early ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.data.batches import Batch
from distill.objectives.objective import NetworkOutput, Term, TermContext
from distill.objectives.pairs import StagePairs, no_autocast, require_maps
from distill.recipe.objectives import ReviewKDTerm

__all__ = ["ReviewKD", "hcl_loss"]

_MAX_MIDDLE = 512
_LEVELS = (4, 2, 1)  # sides of the coarser maps that are compared, too


class ReviewKD(Term):
    """``reviewkd_weight * sum over stages of hcl_loss``; the fusion goes from the last stage to the first."""

    def __init__(self, spec: ReviewKDTerm, context: TermContext) -> None:
        super().__init__()
        self._pairs, self.weights = StagePairs(spec, context), {"reviewkd": spec.reviewkd_weight}
        self.requires = self._pairs.requires
        require_maps(spec, self._pairs)
        middle = min(_MAX_MIDDLE, self._pairs.shapes[-1][0][0])
        last = len(self._pairs.shapes) - 1
        self.fusions = nn.ModuleList(
            _Fusion(ours[0], middle, theirs[0], joins=at < last) for at, (ours, theirs) in enumerate(self._pairs.shapes)
        )

    def losses(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        found, later = [], None
        pairs = list(zip(self.fusions, self._pairs.of(student, teacher), strict=True))
        for fusion, (ours, theirs) in reversed(pairs):
            with no_autocast(ours):
                output, later = fusion(ours, later, theirs.shape[2:])
                found.append(hcl_loss(output, theirs))
        return {"reviewkd": torch.stack(found).sum()}


class _Fusion(nn.Module):
    """The authors' attention-based fusion: two maps, each weighed at every place, and one for the teacher's channels.

    Args:
        joins: Whether there is a later stage to join with.
    """

    def __init__(self, channels: int, middle: int, out_channels: int, *, joins: bool) -> None:
        super().__init__()
        self.narrow = nn.Sequential(nn.Conv2d(channels, middle, 1, bias=False), nn.BatchNorm2d(middle))
        self.widen = nn.Sequential(
            nn.Conv2d(middle, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels)
        )
        self.weigh = nn.Sequential(nn.Conv2d(2 * middle, 2, 1), nn.Sigmoid()) if joins else None
        for part in (self.narrow[0], self.widen[0]):
            assert isinstance(part, nn.Conv2d)
            nn.init.kaiming_uniform_(part.weight, a=1)

    def forward(self, own: Tensor, later: Tensor | None, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Features in the teacher's channels and ``size``, and what is handed on to the stage before."""
        joined = self.narrow(own)
        if self.weigh is not None and later is not None:
            later = F.interpolate(later, size=joined.shape[2:], mode="nearest")
            weights = self.weigh(torch.cat([joined, later], dim=1))
            joined = joined * weights[:, :1] + later * weights[:, 1:]
        if joined.shape[2:] != size:
            joined = F.interpolate(joined, size=size, mode="nearest")
        return self.widen(joined), joined


def hcl_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Hierarchical context loss: mean squares of differences at several sizes (Chen et al., arXiv:2104.09044).

    The maps themselves, then both averaged to 4x4, 2x2 and 1x1 where they are larger than that, each with half the
    weight of the one before; the weights sum to 1.

    Shapes:
        student: ``(B, C, H, W)`` float; gradient flows.
        teacher: The same shape; treated as constant.
        returns: ``()`` float32.

    >>> hcl_loss(torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)).item()
    1.0
    """
    with no_autocast(student):
        ours, theirs = student.float(), teacher.detach().float()
        loss, total, weight = F.mse_loss(ours, theirs), 1.0, 1.0
        for side in _LEVELS:
            if side >= student.shape[2]:
                continue
            weight /= 2.0
            total += weight
            small = F.adaptive_avg_pool2d(ours, side), F.adaptive_avg_pool2d(theirs, side)
            loss = loss + weight * F.mse_loss(*small)
        return loss / total
