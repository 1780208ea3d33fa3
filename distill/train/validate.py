"""The numbers that pick the best epoch: top-1 and cross-entropy on the validation images."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import nn
from torch.nn import functional as F

from distill.data.batches import Loader
from distill.models import Normalize

__all__ = ["validate"]


@torch.no_grad()  # not inference_mode: what normalize caches is used in training too
def validate(
    module: nn.Module,
    normalize: Normalize,
    loader: Loader,
    batch_size: int,
    precision: Callable[[], AbstractContextManager],
) -> dict[str, float]:
    """``{"val_loss", "val_top1"}`` of ``module`` in eval mode; its mode is put back."""
    was_training = module.training
    module.eval()
    sums = None
    for batch in loader.plain(max(batch_size, 64)):
        with precision():
            logits = module(normalize(batch.images)).float()
        loss = F.cross_entropy(logits, batch.labels, reduction="sum")
        hits = (logits.argmax(1) == batch.labels).sum()
        row = torch.stack([loss, hits.to(loss.dtype)])
        sums = row if sums is None else sums + row
    module.train(was_training)
    loss, hits = sums.tolist()
    return {"val_loss": loss / len(loader), "val_top1": hits / len(loader)}
