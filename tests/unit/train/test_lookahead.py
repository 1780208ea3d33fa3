"""Lookahead validates and ships its slow weights: against the algorithm of arXiv:1907.08610, written out in NumPy."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F

from distill.data.batches import Loader
from distill.data.images import Split
from distill.data.views import epoch_order
from distill.events import EpochDone
from distill.objectives import build_objective
from distill.recipe import parse_recipe
from distill.recipe.schema import SupervisedObjective
from distill.teaching.objective import ObjectiveWithTeacher
from distill.train.loop import Job, fit

RECIPE = """
schema_version: 1
name: looking_ahead
role: baseline
model: {{source: students, name: tiny, input_size: 8}}
augment: {{crop_padding: 0, hflip: 0.0}}
data: {{name: synthetic, image_size: 8}}
optim: {{name: sgd, lr: {lr}, momentum: 0.0, weight_decay: 0.0, lookahead: {{k: {k}, alpha: {alpha}}}}}
schedule: {{kind: constant}}
train: {{epochs: 3, batch_size: 10, precision: fp32, channels_last: false, compile: false}}
"""
LR, K, ALPHA, N, EPOCHS = 0.5, 3, 0.4, 40, 3  # four steps an epoch: none ends where a cycle does


class Scaled(nn.Module):
    """Bytes to [0, 1]."""

    input_size = 8

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.to(torch.get_default_dtype()) / 255


def data() -> Split:
    generator = np.random.default_rng(3)
    return Split(generator.integers(0, 256, (N, 3, 8, 8), dtype=np.uint8), generator.integers(0, 4, N))


class Net(nn.Sequential):
    """As the loop wants a network: with a classifier at its end, by name."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(192, 4))


def by_hand(module: nn.Module, split: Split, *, settled: bool) -> tuple[list[np.ndarray], list[float]]:
    """Slow weights in float64 after each epoch's end, and their loss on all images."""
    module = deepcopy(module).double()
    fast = [parameter.detach().numpy().copy() for parameter in module.parameters()]
    slow: list[np.ndarray] | None = None  # they start where the first cycle ends, as timm's do
    images, labels = torch.from_numpy(split.images).double() / 255, torch.from_numpy(split.labels)
    losses, steps = [], 0

    def loss_of(weights: list[np.ndarray], index: np.ndarray) -> tuple[float, list[np.ndarray]]:
        for parameter, value in zip(module.parameters(), weights, strict=True):
            parameter.data = torch.from_numpy(value.copy())
        loss = F.cross_entropy(module(images[index]), labels[index])
        return loss.item(), [each.numpy() for each in torch.autograd.grad(loss, list(module.parameters()))]

    def pull() -> None:
        nonlocal slow, fast
        slow = [value.copy() for value in fast] if slow is None else slow
        slow = [s + ALPHA * (f - s) for s, f in zip(slow, fast, strict=True)]
        fast = [value.copy() for value in slow]

    for epoch in range(EPOCHS):
        order = epoch_order(0, epoch, N)
        for at in range(0, N, 10):
            _, gradients = loss_of(fast, order[at : at + 10])
            fast = [value - LR * gradient for value, gradient in zip(fast, gradients, strict=True)]
            steps += 1
            if steps % K == 0:
                pull()
        if settled:
            pull()
        losses.append(loss_of(fast, np.arange(N))[0])
    return fast, losses


@pytest.fixture
def trained() -> tuple[nn.Module, nn.Module, Split, list[float]]:
    """The network before and after a fit, its images, and the loss it validated by after each epoch."""
    torch.manual_seed(0)
    before, split = Net(), data()
    module = deepcopy(before)
    recipe = parse_recipe(RECIPE.format(lr=LR, k=K, alpha=ALPHA), source="test")
    loader = Loader(split, device="cpu")
    job = Job(
        "run",
        recipe,
        module,
        Scaled(),
        ObjectiveWithTeacher(build_objective(SupervisedObjective())),
        loader,
        loader,
        checkpoints=None,
    )
    fabric = Fabric(accelerator="cpu", devices=1)
    losses = [event.metrics["val_loss"] for event in fit(job, fabric) if isinstance(event, EpochDone)]
    return before, module, split, losses


def test_what_is_validated_and_left_at_the_end_are_the_slow_weights(trained) -> None:
    before, module, split, losses = trained
    weights, expected = by_hand(before, split, settled=True)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    for parameter, value in zip(module.parameters(), weights, strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), value, atol=1e-5)


def test_the_fast_weights_would_be_others(trained) -> None:
    """The comparison above can fail."""
    before, _, split, losses = trained
    _, fast = by_hand(before, split, settled=False)
    assert max(abs(np.array(losses) - fast)) > 1e-3
