"""What a network asks of the matrix kernels: every distinct layer, once, with the modules that hold it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distill.devices.layers import Layer, layers_of
from distill.evaluation.cost import spec_cost
from distill.models import meta_model
from distill.recipe import load_recipe


class _Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.blocks = nn.Sequential(*(nn.Conv2d(4, 4, 3, stride=2, padding=1) for _ in range(2)))
        self.norm = nn.BatchNorm2d(4)
        self.weight = nn.Parameter(torch.empty(8, 2, 1, 1))
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.blocks(self.stem(x)))
        x = F.conv2d(x, self.weight, groups=2)  # a layer that is no module
        windows = x.flatten(2).permute(0, 2, 1).reshape(-1, 8)  # each pixel a row of the batch
        return self.head(windows).reshape(x.shape[0], -1, 10).mean(1)


def test_every_distinct_layer_is_found_with_its_modules() -> None:
    with torch.device("meta"):
        network = _Network().train()
    found = layers_of(network, 16)
    small, ones, same = (1, 1), (2, 2), (1, 1)
    assert [(one.layer, one.names, one.per_image) for one in found] == [
        (Layer("conv2d", (3, 16, 16), (4, 3, 3, 3), False, small, same, small), ("stem",), 1),
        (Layer("conv2d", (4, 16, 16), (4, 4, 3, 3), True, ones, same, small), ("blocks.0",), 1),
        (Layer("conv2d", (4, 8, 8), (4, 4, 3, 3), True, ones, same, small), ("blocks.1",), 1),
        (Layer("conv2d", (4, 4, 4), (8, 2, 1, 1), False, small, (0, 0), small, 2), ("",), 1),
        (Layer("linear", (8,), (10, 8), True), ("head",), 16),
    ]
    assert network.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_layers_that_are_alike_are_one() -> None:
    with torch.device("meta"):
        network = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)), nn.Conv2d(3, 3, 3, padding=2))
    first, second = layers_of(network, 8)
    assert first.names == ("0", "1", "2")
    assert second.names == ("3",)


@pytest.mark.parametrize("name", ["r18_small", "resnet152_cifar100", "grouped_resnet_cifar100", "cnn_cifar10"])
def test_their_multiply_accumulates_are_the_networks(name: str) -> None:
    """torch's own counter, which sees the operators below, finds the same work."""
    spec = load_recipe(name).model
    found = layers_of(meta_model(spec, 10), spec.input_size)
    assert sum(one.layer.macs * one.per_image * len(one.names) for one in found) == spec_cost(spec, 10).macs


@pytest.mark.parametrize(
    ("module", "images"),
    [
        (nn.Conv2d(6, 9, (3, 1), stride=(2, 1), padding=(2, 0), dilation=(2, 1), groups=3), (2, 6, 9, 7)),
        (nn.Conv2d(4, 4, 3, padding="same", bias=False), (1, 4, 8, 8)),
        (nn.Conv1d(4, 6, 3, stride=2), (3, 4, 9)),
        (nn.Linear(5, 7), (2, 3, 5)),
    ],
)
def test_a_layer_does_what_its_module_does(module: nn.Module, images: tuple[int, ...]) -> None:
    layer = _only_layer(module, images)
    x = torch.randn(images)
    bias = None if module.bias is None else module.bias.detach()
    assert torch.equal(layer(x, module.weight.detach(), bias), module(x))
    assert layer.has_bias == (module.bias is not None)


def _only_layer(module: nn.Module, images: tuple[int, ...]) -> Layer:
    class Before(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.empty(images, device=x.device)

    (one,) = layers_of(nn.Sequential(Before(), module.to("meta")), 4)
    module.to_empty(device="cpu")
    for parameter in module.parameters():  # none is left as the memory was
        nn.init.normal_(parameter)
    return one.layer


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (
            Layer("conv2d", (4, 16, 16), (8, 4, 1, 1), False, (2, 2), (0, 0), (1, 1)),
            "conv2d 1x1, stride 2, 4 -> 8, 16x16",
        ),
        (
            Layer("conv2d", (6, 9, 7), (9, 2, 3, 1), True, (2, 1), (2, 0), (2, 1), 3),
            "conv2d 3x1, stride 2x1, dilation 2x1, 3 groups, padding 2x0, 6 -> 9, 9x7, bias",
        ),
        (Layer("linear", (197, 192), (576, 192), True), "linear 192 -> 576, 197 rows, bias"),
        (Layer("linear", (84,), (10, 84), False), "linear 84 -> 10"),
    ],
)  # fmt: skip
def test_a_layer_in_words(layer: Layer, text: str) -> None:
    assert str(layer) == text
