"""The mean of networks' weights: by hand, and by torch's own averaging."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from distill.models.mean_weights import mean_weights


def _state(weight: float, counted: int) -> dict[str, torch.Tensor]:
    return {"weight": torch.full((2,), weight), "num_batches_tracked": torch.tensor(counted)}


def test_every_network_counts_as_much_and_counters_have_no_mean() -> None:
    found = mean_weights([_state(1.0, 7), _state(2.0, 9), _state(6.0, 11)])
    assert found["weight"].tolist() == [3.0, 3.0]
    assert found["weight"].dtype == torch.float32
    assert found["num_batches_tracked"].item() == 7
    assert mean_weights([_state(1.5, 7)])["weight"].tolist() == [1.5, 1.5]


def test_it_is_the_mean_that_torch_works_out() -> None:
    networks = []
    for seed in range(4):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(288, 5))
        network(torch.randn(16, 3, 8, 8))  # so that batch norm's statistics differ
        networks.append(network.eval())
    averaged = AveragedModel(networks[0], use_buffers=True)
    for network in networks:
        averaged.update_parameters(network)
    found = mean_weights([each.state_dict() for each in networks])
    expected = averaged.module.state_dict()
    assert set(found) == set(expected)
    for name, tensor in found.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, expected[name], msg=name)


def test_what_it_is_of_stays_as_it_was() -> None:
    states = [_state(1.0, 7), _state(3.0, 9)]
    found = mean_weights(states)
    found["weight"].zero_()
    found["num_batches_tracked"].zero_()
    assert states[0]["weight"].tolist() == [1.0, 1.0]
    assert states[0]["num_batches_tracked"].item() == 7


@pytest.mark.parametrize("states", [[], [_state(1.0, 7), {}], [_state(1.0, 7), {"weight": torch.zeros(3)}]])
def test_networks_that_differ_have_none(states: list[dict[str, torch.Tensor]]) -> None:
    with pytest.raises(ValueError, match="not built alike"):
        mean_weights(states)
