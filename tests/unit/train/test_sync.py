"""Synchronised batch norm leaves a network's answers as they are, activations inside batch norms included."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from distill.train.sync import synchronized
from students.fast import fast


@pytest.mark.parametrize("name", ["resnetv2_50", "mobilenetv3_small_050", "regnetx_002", "resnet10t"])
def test_answers_stay(name: str) -> None:
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=10).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before = network(images)
        after = synchronized(network).eval()(images)
    torch.testing.assert_close(after, before)


def test_every_batch_norm_is_converted() -> None:
    converted = synchronized(timm.create_model("resnetv2_50", num_classes=10))
    norms = [each for each in converted.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(isinstance(each, nn.SyncBatchNorm) for each in norms)


def test_scales_that_are_not_learned_stay_so() -> None:
    """The fast network's batch norms have biases alone; their scales are buffers of ones."""
    network = fast(num_classes=10).eval()
    images, names = torch.randn(2, 3, 32, 32), list(network.state_dict())
    learned = [name for name, _ in network.named_parameters()]
    with torch.no_grad():
        before = network(images)
        converted = synchronized(network).eval()
        torch.testing.assert_close(converted(images), before)
    assert list(converted.state_dict()) == names
    assert [name for name, _ in converted.named_parameters()] == learned
    norms = [each for each in converted.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(isinstance(each, nn.SyncBatchNorm) and not each.weight.requires_grad for each in norms)
