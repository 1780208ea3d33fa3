"""Exponential moving average of the weights: what is validated and shipped when ``train.ema`` is set."""

from __future__ import annotations

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

__all__ = ["build_ema"]


def build_ema(module: nn.Module, decay: float) -> AveragedModel | None:
    """torch's averaged copy of ``module``, batch-norm statistics averaged too; None where ``decay`` is 0."""
    if decay == 0.0:
        return None
    averaged = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    return averaged.requires_grad_(False)
