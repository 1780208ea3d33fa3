"""The mean of networks' weights: by hand."""

from __future__ import annotations

import pytest
import torch

from benchmarks.soup import mean_of
from distill.errors import UsageError


def _state(weight: float, counted: int) -> dict[str, torch.Tensor]:
    return {"weight": torch.full((2,), weight), "num_batches_tracked": torch.tensor(counted)}


def test_every_network_counts_as_much_and_counters_have_no_mean() -> None:
    found = mean_of([_state(1.0, 7), _state(2.0, 9), _state(6.0, 11)])
    assert found["weight"].tolist() == [3.0, 3.0]
    assert found["weight"].dtype == torch.float32
    assert found["num_batches_tracked"].item() == 7
    assert mean_of([_state(1.5, 7)])["weight"].tolist() == [1.5, 1.5]


@pytest.mark.parametrize("other", [{"weight": torch.zeros(3), "num_batches_tracked": torch.tensor(0)}, {}])
def test_networks_that_differ_have_none(other: dict[str, torch.Tensor]) -> None:
    with pytest.raises(UsageError, match="different networks"):
        mean_of([_state(1.0, 7), other])
