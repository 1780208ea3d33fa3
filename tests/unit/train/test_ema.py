"""The averaged weights against torch's own average, written out."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from distill.train.ema import build_ema

DECAY = 0.75


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 3))


def _moved(network: nn.Module) -> None:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter))
    network(torch.randn(5, 3, 8, 8))  # moves batch norm's statistics and its counter


def test_averages_as_torch_does_and_copies_counters() -> None:
    network = _network()
    ours = build_ema(network, DECAY)
    torchs = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(DECAY), use_buffers=True)
    for _ in range(4):
        _moved(network)
        ours.update_parameters(network)
        torchs.update_parameters(network)
    for (name, tensor), expected in zip(
        ours.module.state_dict().items(), torchs.module.state_dict().values(), strict=True
    ):
        if name.endswith("num_batches_tracked"):
            assert tensor == 4
        else:
            torch.testing.assert_close(tensor, expected, rtol=0, atol=0)
    assert int(ours.n_averaged) == 4


def test_starts_from_the_first_weights_it_sees() -> None:
    network = _network()
    average = build_ema(network, DECAY)
    _moved(network)
    average.update_parameters(network)
    for tensor, expected in zip(average.module.parameters(), network.parameters(), strict=True):
        assert torch.equal(tensor, expected)
        assert not tensor.requires_grad


def test_no_decay_no_average() -> None:
    assert build_ema(_network(), 0.0) is None
