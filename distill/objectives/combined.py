"""The sum that is minimised: cross-entropy and terms, with weights that may change from epoch to epoch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial, reduce
from operator import or_

from torch import Tensor, nn

from distill.data.batches import Batch
from distill.objectives.objective import LossParts, NetworkOutput, RequiredOutputs, Term
from distill.objectives.supervised import cross_entropy, labelled_cross_entropy
from distill.recipe.objectives import TermSpec

__all__ = ["Combined", "share_of"]


class Combined(nn.Module):
    """``ce_weight * CE + sum of the terms' weighted parts``.

    Args:
        terms: By their kinds, each with the spec that says when it takes part.
        ce_from_epoch: The first epoch in which the cross-entropy takes part, from 1.
        class_weights: ``(C,)``, what an image of each class counts in the cross-entropy; None: all alike.
        unlabelled: Some images have no label, and pay no cross-entropy.
    """

    def __init__(
        self,
        terms: Mapping[str, tuple[TermSpec, Term]] = {},
        *,
        ce_weight: float = 1.0,
        ce_from_epoch: int = 1,
        label_smoothing: float = 0.0,
        class_weights: Tensor | None = None,
        unlabelled: bool = False,
    ) -> None:
        super().__init__()
        self.terms = nn.ModuleDict({kind: term for kind, (_, term) in terms.items()})
        self.requires = reduce(or_, (term.requires for _, term in terms.values()), RequiredOutputs())
        self._whole_ce_weight, self._ce_from_epoch = ce_weight, ce_from_epoch
        self._label_smoothing = label_smoothing
        self._class_weights = class_weights  # no buffer: the recipe and the data say it, no state needs to
        self._unlabelled = unlabelled
        self._specs = {kind: spec for kind, (spec, _) in terms.items()}
        self._active: list[tuple[Term, dict[str, float]]] = []
        self.begin_epoch(0)

    def begin_epoch(self, epoch: int) -> None:
        """Set the weights of the epoch after ``epoch`` whole ones. What has none is not worked out."""
        self._active = []
        self._ce_weight = self._whole_ce_weight if epoch + 1 >= self._ce_from_epoch else 0.0
        for kind, spec in self._specs.items():
            term, share = self.terms[kind], share_of(spec, epoch)
            assert isinstance(term, Term)
            term.begin_epoch(epoch)
            if share > 0.0 and any(term.weights.values()):
                self._active.append((term, {part: share * weight for part, weight in term.weights.items()}))

    @property
    def needs_teacher(self) -> bool:
        """Whether a term that asks a teacher takes part in this epoch."""
        return any(term.requires for term, _ in self._active)

    def forward(self, student: NetworkOutput, teacher: NetworkOutput | None, batch: Batch) -> LossParts:
        ce = self._cross_entropy(student.logits, batch)
        loss, parts = self._ce_weight * ce, {"ce": ce.detach()}
        for term, weights in self._active:
            if teacher is None and term.requires:
                raise ValueError(f"objective {', '.join(self._specs)} needs a teacher's answer, got None")
            # a term that requires nothing of a teacher sees nothing of one
            told = NetworkOutput(student.logits.detach()) if teacher is None else teacher
            for name, part in term.losses(student, told, batch).items():
                loss = loss + weights[name] * part
                parts[name] = part.detach()
        return LossParts(loss=loss, parts=parts)

    def _cross_entropy(self, logits: Tensor, batch: Batch) -> Tensor:
        if self._class_weights is not None and self._class_weights.device != logits.device:
            self._class_weights = self._class_weights.to(logits.device)
        work_out = (
            partial(labelled_cross_entropy, label_fraction=batch.label_fraction) if self._unlabelled else cross_entropy
        )
        return work_out(
            logits,
            batch.labels,
            label_smoothing=self._label_smoothing,
            mix=batch.mix,
            class_weights=self._class_weights,
        )


def share_of(spec: TermSpec, epoch: int) -> float:
    """The share of its weights that a term has in the epoch after ``epoch`` whole ones.

    >>> from distill.recipe.objectives import KDTerm
    >>> [share_of(KDTerm(kind="kd", ramp_epochs=4, from_epoch=2, until_epoch=4), epoch) for epoch in range(5)]
    [0.0, 0.5, 0.75, 1.0, 0.0]
    """
    if epoch + 1 < spec.from_epoch or (spec.until_epoch is not None and epoch >= spec.until_epoch):
        return 0.0
    return min((epoch + 1) / spec.ramp_epochs, 1.0) if spec.ramp_epochs else 1.0
