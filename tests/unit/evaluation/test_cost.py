"""Costs against hand values, and against the figures published for well-known networks."""

from __future__ import annotations

import threading

import pytest
import timm
import torch
import torchvision
from torch import nn

from distill.evaluation.cost import model_cost
from distill.models import build_model
from distill.recipe.model_specs import ResNetModel


def test_a_convolution_by_hand():
    conv = nn.Conv2d(3, 8, 5, stride=2, padding=2)
    cost = model_cost(conv, 32)
    assert cost.macs == 16 * 16 * 8 * (5 * 5 * 3)
    assert cost.params == 8 * 75 + 8
    assert cost.size_mb == pytest.approx(608 * 4 / 1e6)


def test_grouped_convolution_and_linear_by_hand():
    net = nn.Sequential(nn.Conv2d(4, 8, 3, groups=4, bias=False), nn.Flatten(), nn.Linear(8 * 36, 10))
    cost = model_cost(net, 8, in_channels=4)
    conv, flatten, linear = cost.layers
    assert (conv.macs, conv.params, conv.output_shape) == (36 * 8 * 9, 72, (1, 8, 6, 6))
    assert (flatten.macs, flatten.params) == (0, 0)
    assert (linear.name, linear.kind, linear.macs, linear.params) == ("2", "Linear", 2880, 2890)


@pytest.mark.parametrize(("library", "published"), [("torchvision", 4.09), ("timm", 4.09)])
def test_resnet50_matches_the_published_gmacs(library, published):
    with torch.device("meta"):
        net = torchvision.models.resnet50() if library == "torchvision" else timm.create_model("resnet50")
    cost = model_cost(net, 224)
    assert cost.macs / 1e9 == pytest.approx(published, abs=0.005)
    assert cost.params == 25_557_032


def test_attention_products_are_counted():
    tokens, dim, depth = 197, 192, 12
    linear = depth * 12 * tokens * dim**2  # query, key, value, projection, and an MLP four times as wide
    attention = depth * 2 * tokens**2 * dim
    patches, head = 196 * 16 * 16 * 3 * dim, dim * 10
    with torch.device("meta"):
        net = timm.create_model("vit_tiny_patch16_224", num_classes=10)
    cost = model_cost(net, 224)
    assert cost.macs == linear + attention + patches + head
    rows = {row.name: row for row in cost.layers}
    assert rows["blocks.0.attn"].macs == attention // depth
    assert rows[""].params == dim + tokens * dim  # the class token and the position embedding


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "vgg11", "resnetv2_50"])
def test_layers_add_up(name):
    with torch.device("meta"):
        net = timm.create_model(name)
    cost = model_cost(net, 224)
    assert sum(row.params for row in cost.layers) == cost.params
    assert sum(row.macs for row in cost.layers) == cost.macs
    assert len({row.name for row in cost.layers}) == len(cost.layers)


def test_counting_leaves_the_network_alone():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    model_cost(net, 8)
    assert net.training
    assert not any(m._forward_hooks for m in net.modules())
    assert all(torch.equal(v, before[k]) and v.device.type == "cpu" for k, v in net.state_dict().items())


def test_one_that_cannot_be_copied_is_counted_itself():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).train()
    expected = model_cost(net, 8)
    net[1].eval()
    net.lock = threading.Lock()
    assert model_cost(net, 8) == expected
    assert [each.training for each in net.modules()] == [True, True, False, True]
    assert not any(m._forward_hooks for m in net.modules())


def test_size_counts_buffers_and_float32():
    net = nn.BatchNorm2d(10).half()  # 2 x 10 parameters, 2 x 10 statistics, one int64 counter
    with torch.device("meta"):
        assert model_cost(net, 4, in_channels=10).size_mb == pytest.approx((40 * 4 + 8) / 1e6)


def test_shared_weights_count_once():
    first, second = nn.Linear(8, 8), nn.Linear(8, 8)
    second.weight = first.weight
    cost = model_cost(nn.Sequential(first, second), 8)
    assert cost.params == 64 + 16 == sum(row.params for row in cost.layers)
    assert cost.macs == 2 * 3 * 8 * 64


def test_a_student_of_four_stages():
    spec = ResNetModel(
        source="students", name="resnet", blocks=(1, 1), channels=(4, 8), strides=(1, 2), input_size=8, pool=4
    )
    cost = model_cost(build_model(spec, num_classes=3), 8)
    stem, one = 64 * 27 * 4, 2 * 64 * 36 * 4
    two, skip = 16 * 36 * 8 + 16 * 72 * 8, 16 * 4 * 8
    assert cost.macs == stem + one + two + skip + 24
