"""Factor transfer: a teacher's maps are paraphrased in fewer channels, and a student learns to say the same."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.data.batches import Batch
from distill.objectives.objective import NetworkOutput, Term, TermContext
from distill.objectives.pairs import StagePairs, as_small, no_autocast, require_maps
from distill.recipe.objectives import FTTerm

__all__ = ["FT", "ft_loss"]

_SLOPE = 0.1


class FT(Term):
    """``ft_weight * sum over stages of ft_loss(translator(student), paraphraser(teacher))`` (arXiv:1802.04977).

    For ``paraphraser_epochs`` the paraphraser learns to restore the teacher's maps from their factors, and the student
    learns nothing of them; then the paraphraser stays as it is.
    """

    def __init__(self, spec: FTTerm, context: TermContext) -> None:
        super().__init__()
        self._spec, self._pairs = spec, StagePairs(spec, context)
        # restoring is no matter of the student's: its weight only keeps pace with the schedule of the other's
        self.weights = {"ft": spec.ft_weight, "paraphraser": 1.0 if spec.ft_weight else 0.0}
        self.requires = self._pairs.requires
        require_maps(spec, self._pairs)
        widths = [max(1, round(theirs[0] * spec.paraphrase_rate)) for _, theirs in self._pairs.shapes]
        stages = list(zip(self._pairs.shapes, widths, strict=True))
        self.paraphrasers = nn.ModuleList(_Paraphraser(theirs[0], width) for (_, theirs), width in stages)
        self.translators = nn.ModuleList(_convolutions(ours[0], width, batch_norm=True) for (ours, _), width in stages)
        self._paraphrasing = True

    def begin_epoch(self, epoch: int) -> None:
        self._paraphrasing = epoch < self._spec.paraphraser_epochs

    def losses(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        found = []
        modules = zip(self.paraphrasers, self.translators, self._pairs.of(student, teacher), strict=True)
        for paraphraser, translator, (ours, theirs) in modules:
            assert isinstance(paraphraser, _Paraphraser)
            with no_autocast(ours):
                if self._paraphrasing:
                    found.append(F.mse_loss(paraphraser(theirs), theirs))
                    continue
                with torch.no_grad():
                    factor = paraphraser.factor(theirs)
                found.append(ft_loss(*as_small(translator(ours), factor)))
        return {"paraphraser" if self._paraphrasing else "ft": torch.stack(found).sum()}


class _Paraphraser(nn.Module):
    """Restores maps ``(B, C, H, W)`` from their factors ``(B, width, H, W)``."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.encoder = _convolutions(channels, width, batch_norm=False)
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(width, width, 3, padding=1),
            nn.LeakyReLU(_SLOPE),
            nn.ConvTranspose2d(width, channels, 3, padding=1),
            nn.LeakyReLU(_SLOPE),
            nn.ConvTranspose2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(_SLOPE),
        )

    def factor(self, maps: Tensor) -> Tensor:
        found: Tensor = self.encoder(maps)
        return found

    def forward(self, maps: Tensor) -> Tensor:
        restored: Tensor = self.decoder(self.encoder(maps))
        return restored


def _convolutions(channels: int, width: int, *, batch_norm: bool) -> nn.Sequential:
    """Three of 3x3, from ``channels`` to ``width``, with leaky ReLUs."""
    layers: list[nn.Module] = []
    for before, after in ((channels, channels), (channels, width), (width, width)):
        layers += [nn.Conv2d(before, after, 3, padding=1), *([nn.BatchNorm2d(after)] if batch_norm else [])]
        layers.append(nn.LeakyReLU(_SLOPE))
    return nn.Sequential(*layers)


def ft_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean absolute difference of factors as unit vectors (Kim et al., arXiv:1802.04977).

    Shapes:
        student: ``(B, ...)`` float, its factor; gradient flows.
        teacher: The same shape; treated as constant.
        returns: ``()`` float32.

    >>> ft_loss(torch.tensor([[0.0, -1.0]]), torch.tensor([[0.0, 2.0]])).item()
    1.0
    """
    with no_autocast(student):
        ours, theirs = (F.normalize(each.flatten(1), dim=1) for each in (student.float(), teacher.detach().float()))
        return F.l1_loss(ours, theirs)
