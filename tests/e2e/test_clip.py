"""Gradients of the network and of an objective's own weights are clipped apart, by value, by norm, and by both."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from distill.pipeline import RunResult
from distill.train.step import Learner


def _norm(parameters: list[torch.nn.Parameter]) -> float:
    return float(torch.stack([each.grad.norm() for each in parameters if each.grad is not None]).norm())


@pytest.mark.parametrize(
    "clips", [("train.clip_norm=0.05",), ("train.clip_norm=0.05", "train.clip_value=1000"), ("train.clip_value=0.001",)]
)
def test_an_objectives_own_weights_do_not_slow_the_network(
    train: Callable[..., RunResult], clips: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    clip = Learner._clip

    def watched(learner: Learner) -> None:
        parts = [list(learner.raw.parameters()), list(learner.auxiliary.parameters)]
        before = list(map(_norm, parts))
        clip(learner)
        largest = [max(float(each.grad.abs().max()) for each in part if each.grad is not None) for part in parts]
        seen.append((before, list(map(_norm, parts)), largest))

    monkeypatch.setattr(Learner, "_clip", watched)
    train("objective={kind: fitnet, fitnet_weight: 100.0}", "teacher.logits=live", "train.epochs=1", *clips)
    assert seen
    for before, after, largest in seen:
        assert min(before) > 0.1  # there is something to clip
        if any("norm" in each for each in clips):
            assert after == pytest.approx([0.05, 0.05], rel=1e-3)
        else:
            assert max(largest) == pytest.approx(0.001, rel=1e-6)
