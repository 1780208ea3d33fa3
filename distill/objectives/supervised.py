"""Learning from labels alone."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.data.images import UNLABELLED

__all__ = ["MixedLabels", "cross_entropy", "labelled_cross_entropy"]


class MixedLabels(Protocol):
    """The labels of images mixed with a partner (mixup, CutMix).

    Shapes:
        partner_labels: ``(B,)`` int64.
        weight: ``(B,)`` float32, the share of the image's own label, from 0 to 1.
    """

    @property
    def partner_labels(self) -> Tensor: ...

    @property
    def weight(self) -> Tensor: ...


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    label_smoothing: float = 0.0,
    mix: MixedLabels | None = None,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Cross-entropy with the labels, in float32 whatever autocast is on.

    A mixed image pays ``weight * CE(label) + (1 - weight) * CE(partner)`` (arXiv:1710.09412, arXiv:1905.04899).
    Smoothing (arXiv:1512.00567) gives ``label_smoothing / C`` to every class, for either label of a mixed image.
    Where classes weigh unlike, each of these counts as its label's class does; the mean stays one over images, not over
    weights: a batch without rare classes is no louder.

    Shapes:
        logits: ``(B, C)`` float; gradient flows.
        labels: ``(B,)`` int64.
        class_weights: ``(C,)`` float32 where the logits are; None: every class counts alike.
        returns: ``()`` float32, mean over the batch.

    >>> cross_entropy(torch.zeros(2, 4), torch.tensor([0, 3])).item() == torch.tensor(4.0).log().item()
    True
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.float()
        if mix is None and class_weights is None:
            return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        own = _each(logits, labels, label_smoothing, class_weights)
        if mix is None:
            return own.mean()
        partner = _each(logits, mix.partner_labels, label_smoothing, class_weights)
        weight = mix.weight.float()
        return (weight * own + (1.0 - weight) * partner).mean()


def _each(logits: Tensor, labels: Tensor, label_smoothing: float, class_weights: Tensor | None) -> Tensor:
    """Of every image ``(B,)``; 0 of one without a label."""
    losses = F.cross_entropy(logits, labels, label_smoothing=label_smoothing, ignore_index=UNLABELLED, reduction="none")
    return losses if class_weights is None else class_weights[labels.clamp(min=0)] * losses


def labelled_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    label_smoothing: float = 0.0,
    mix: MixedLabels | None = None,
    class_weights: Tensor | None = None,
    label_fraction: Tensor | None = None,
) -> Tensor:
    """:func:`cross_entropy` of the labels that there are: an image without one (``UNLABELLED``) pays nothing.

    Of a mixed image the label that is there pays by its share.

    Shapes:
        logits: ``(B, C)`` float; gradient flows.
        labels: ``(B,)`` int64.
        class_weights: ``(C,)`` float32 where the logits are; None: every class counts alike.
        label_fraction: ``()`` float32, labels for each image of the whole step, of which these are a part: the mean
            of all parts by their images is then the mean over the step's labels. None: these are all of it.
        returns: ``()`` float32, mean over the labels by their shares; 0 where there is none.

    >>> labelled_cross_entropy(torch.zeros(2, 4), torch.tensor([0, -1])).item() == torch.tensor(4.0).log().item()
    True
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.float()
        shares = [(labels, torch.ones_like(logits[:, 0]))]
        if mix is not None:
            weight = mix.weight.float()
            shares = [(labels, weight), (mix.partner_labels, 1.0 - weight)]
        paid, whole = torch.zeros_like(logits[0, 0]), torch.zeros_like(logits[0, 0])
        for each, share in shares:
            paid = paid + (share * _each(logits, each, label_smoothing, class_weights)).sum()
            whole = whole + (share * (each != UNLABELLED)).sum()
        if label_fraction is not None:
            whole = label_fraction * len(labels)
        return paid / torch.where(whole > 0, whole, 1.0)
