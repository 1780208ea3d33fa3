"""What an objective owns besides the network: adapters that are trained with it, memories that are saved with it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from distill.recipe.schema import TrainSpec
from distill.team.shares import Team

__all__ = ["AuxiliaryModule", "clip_gradients"]


class AuxiliaryModule:
    """An objective's module on the run's device.

    It is not wrapped for several processes, since a loss calls it where and as often as it likes: the gradients of its
    parameters are averaged at the end of a step.
    """

    def __init__(self, module: nn.Module, team: Team, *, device: torch.device) -> None:
        self.module = module.to(device)
        self._team = team

    @property
    def parameters(self) -> Sequence[nn.Parameter]:
        """What the optimiser learns besides the network."""
        return [parameter for parameter in self.module.parameters() if parameter.requires_grad]

    def average_gradients(self) -> None:
        """Average the gradients over all processes."""
        if self._team.world_size == 1:
            return
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if not gradients:
            return
        flat = self._team.mean(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, mean in zip(gradients, flat.split([each.numel() for each in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def clip(self, train: TrainSpec) -> None:
        """As the network's gradients are clipped, but on their own, so that those are what they are without it."""
        clip_gradients(self.parameters, train)


def clip_gradients(parameters: Sequence[nn.Parameter], train: TrainSpec) -> None:
    """``clip_value`` for each gradient, then ``clip_norm`` for all of them together."""
    if train.clip_value is not None:
        clip_grad_value_(parameters, train.clip_value)
    if train.clip_norm is not None:
        clip_grad_norm_(parameters, train.clip_norm)
