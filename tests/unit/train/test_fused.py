"""Where the optimiser's one-kernel step is not taken: what it would do there, and that a recipe keeps from it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from distill.recipe import load_recipe
from distill.train.step import _may_be_fused


def _unfrozen_after_a_step(fused: bool) -> None:
    first, second = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([first, second], lr=0.1, momentum=0.9, fused=fused)
    first.grad = torch.ones(2)
    optimizer.step()
    first.grad, second.grad = torch.ones(2), torch.ones(2)
    optimizer.step()


def test_fused_sgd_fails_when_weights_join_later() -> None:
    """Should torch mend it, this fails, and the rule can go."""
    _unfrozen_after_a_step(fused=False)
    with pytest.raises(TypeError, match="NoneType"):
        _unfrozen_after_a_step(fused=True)


@pytest.mark.parametrize(
    ("changes", "fused"),
    [
        ((), True),
        (("train.freeze_backbone_epochs=1",), False),
        (("train.freeze_backbone_epochs=1", "optim={name: adamw, lr: 0.001}"), True),
        (("train.freeze_backbone_epochs=5", "train.epochs=5"), True),
        (("train.precision=fp16",), True),
        (("train.precision=fp16", "train.clip_value=1.0"), False),
    ],
)
def test_a_recipe_keeps_from_it(changes: tuple[str, ...], fused: bool) -> None:
    assert _may_be_fused(load_recipe("r18_small", list(changes))) is fused
