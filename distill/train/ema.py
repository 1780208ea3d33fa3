"""Exponential moving average of the weights: what is validated and shipped when ``train.ema`` is set."""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

__all__ = ["build_ema"]


def build_ema(module: nn.Module, decay: float) -> AveragedModel | None:
    """An averaged copy of ``module``, batch-norm statistics averaged too; None where ``decay`` is 0."""
    if decay == 0.0:
        return None
    return _Average(module, decay).requires_grad_(False)


class _Average(AveragedModel):
    """torch's, updated without waiting for the device and without a kernel for each of batch norm's counters.

    torch's own update sends its counter to the device at every step, which waits, and works out an average of integers
    one by one: some 600 kernels a step for ResNet-152. Here integers are copied.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        super().__init__(module, use_buffers=True)
        self._decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Move the average towards ``model``; the first call copies it."""
        is_first = int(self.n_averaged) == 0
        pairs = list(zip(_tensors(self.module), _tensors(model), strict=True))
        moving = [pair for pair in pairs if not is_first and pair[0].is_floating_point()]
        copied = [pair for pair in pairs if is_first or not pair[0].is_floating_point()]
        if moving:
            torch._foreach_lerp_([to for to, _ in moving], [new for _, new in moving], 1 - self._decay)
        if copied:
            torch._foreach_copy_([to for to, _ in copied], [new for _, new in copied])
        self.n_averaged += 1


def _tensors(module: nn.Module) -> list[Tensor]:
    return [tensor.detach() for tensor in chain(module.parameters(), module.buffers())]
