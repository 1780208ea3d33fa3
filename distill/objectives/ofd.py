"""Overhaul of feature distillation: a teacher's features before their activation, those that are off only roughly."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distill.data.batches import Batch
from distill.objectives.adapters import connector, halved_backwards
from distill.objectives.objective import NetworkOutput, Term, TermContext
from distill.objectives.pairs import StagePairs, as_small, no_autocast, require_maps
from distill.recipe.objectives import OFDTerm

__all__ = ["OFD", "ofd_loss"]


class OFD(Term):
    """``ofd_weight * sum over stages of ofd_loss(connector(student), teacher)``, each stage half the next one's.

    A channel's margin is the mean of what is below 0 in it, over all images so far: the paper's expectation, counted
    and not worked out from batch norm, which a teacher need not have there.
    """

    def __init__(self, spec: OFDTerm, context: TermContext) -> None:
        super().__init__()
        self._pairs, self.weights = StagePairs(spec, context), {"ofd": spec.ofd_weight}
        self.requires = self._pairs.requires
        require_maps(spec, self._pairs)
        self.connectors = nn.ModuleList(connector(*shapes) for shapes in self._pairs.shapes)
        self.margins = nn.ModuleList(_Margin(theirs[0]) for _, theirs in self._pairs.shapes)

    def losses(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        found = []
        pairs = zip(self.connectors, self.margins, self._pairs.of(student, teacher), strict=True)
        for connect, margin, (ours, theirs) in pairs:
            with no_autocast(ours):
                small, target = as_small(ours, theirs)
                found.append(ofd_loss(connect(small), target, margin(target)))
        return {"ofd": halved_backwards(found)}


class _Margin(nn.Module):
    """Of each channel, the mean of its numbers below 0."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.count: Tensor
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("count", torch.zeros(channels))

    def forward(self, teacher: Tensor) -> Tensor:
        """``(C, 1, 1)``, these ``(B, C, H, W)`` included."""
        found = (teacher < 0).sum(dim=(0, 2, 3))
        self.count += found
        self.mean += (teacher.clamp(max=0).sum(dim=(0, 2, 3)) - found * self.mean) / self.count.clamp(min=1)
        return self.mean.clone()[:, None, None]


def ofd_loss(student: Tensor, teacher: Tensor, margin: Tensor) -> Tensor:
    """Partial squared distance, summed over an image's neurons (Heo et al., arXiv:1904.01866).

    The teacher's number is raised to its channel's margin if it is below; where it is not above 0, a student that is
    below it is let be.

    Shapes:
        student: ``(B, C, H, W)`` float, before the activation; gradient flows.
        teacher: The same shape; treated as constant.
        margin: ``(C, 1, 1)``, at most 0.
        returns: ``()`` float32, mean over the batch.

    >>> margin = torch.tensor([[[-1.0]]])
    >>> maps = [torch.tensor(each).view(1, 1, 1, 3) for each in ([0.0, -4.0, 1.0], [-3.0, -3.0, 3.0])]
    >>> ofd_loss(*maps, margin).item()
    5.0
    """
    with no_autocast(student):
        target = torch.maximum(teacher.detach().float(), margin)
        counts = (student > target) | (target > 0)
        return ((student.float() - target).square() * counts).flatten(1).sum(dim=1).mean()
