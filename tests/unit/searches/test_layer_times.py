"""Layers timed one by one, of every form that a network may have."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from distill.devices.layers import layers_of
from distill.searches import layers as timed


class Odd(nn.Module):
    """Rectangular kernels, dilation, groups, torch's own padding, and linear layers on vectors and on rows."""

    def __init__(self) -> None:
        super().__init__()
        self.tall = nn.Conv2d(3, 8, (5, 1), stride=(2, 1), padding=(2, 0))
        self.wide = nn.Conv2d(8, 8, (1, 3), dilation=(1, 2), padding="same", groups=4)
        self.twice = nn.ModuleList([nn.Conv2d(8, 8, 3, padding=1) for _ in range(2)])
        self.rows, self.head = nn.Linear(8, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.wide(self.tall(x))
        for layer in (*self.twice, self.twice[0]):
            x = layer(x)
        return self.head(self.rows(x.flatten(2).transpose(1, 2)).mean(1))


def test_a_layer_is_the_same_in_both_runtimes() -> None:
    with torch.device("meta"):
        passes = layers_of(Odd(), 12)
    assert [len(each.names) for each in passes] == [1, 1, 2, 1, 1]
    assert [each.calls for each in passes] == [1, 1, 3, 1, 1]
    for each in passes:
        images = torch.rand(2, *each.layer.input)
        theirs, ours = timed._onnx(each.layer, 1)(images)[0], timed._torch(each.layer)(images)
        assert theirs.shape == tuple(ours.shape), str(each.layer)


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime"])
def test_its_time_is_of_each_batch_size(runtime: str) -> None:
    with torch.device("meta"):
        tall = layers_of(Odd(), 12)[0].layer
    found = timed.time_layer(tall, [1, 2], runtime=runtime, threads=1)
    assert found.keys() == {"1", "2"}
    assert all(milliseconds > 0 for milliseconds in found.values())
