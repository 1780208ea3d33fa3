"""Channels-last weights, for every network."""

from __future__ import annotations

import torch
from torch import nn

from distill.devices import channels_last


def test_it_is_what_torch_makes_of_networks_that_torch_takes() -> None:
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    theirs = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    theirs.load_state_dict(ours.state_dict())
    assert channels_last(ours) is ours
    theirs.to(memory_format=torch.channels_last)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert mine.stride() == other.stride()
        assert torch.equal(mine, other)


def test_a_3d_convolution_is_left_as_it_is() -> None:
    """timm's lambda networks hold one, and ``Module.to`` refuses them."""
    net = nn.ModuleList([nn.Conv2d(2, 2, 3), nn.Conv3d(2, 2, 3)])
    channels_last(net)
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert not net[0].weight.is_contiguous()
    assert net[1].weight.is_contiguous()
