"""Stages have the same names in every network, and what is kept of them is what the network computed."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn

from distill.models import build_model
from distill.models.taps import Tapped, Taps, stage_modules, stage_shapes
from distill.recipe import load_recipe
from distill.recipe.model_specs import TimmModel


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("r18_small", {"stem": (64, 32, 32), "stage2": (128, 16, 16), "stage4": (256, 4, 4), "pooled": (256,)}),
        ("resnet152_cifar10", {"stem": (64, 32, 32), "stage4": (2048, 4, 4), "pooled": (2048,)}),
        ("resnet9_cifar10", {"stem": (64, 32, 32), "stage3": (512, 4, 4), "pooled": (512,)}),
        ("lenet_cifar10", {"stage1": (6, 14, 14), "stage2": (16, 5, 5), "pooled": (84,)}),
        ("cnn_cifar10", {"stage1": (32, 15, 15), "stage3": (64, 4, 4), "pooled": (64,)}),
        ("vgg16_bn_cifar10", {"stage1": (64, 32, 32), "stage4": (512, 4, 4), "pooled": (4096,)}),
        ("resnetv2_152_cifar10", {"stem": (64, 8, 8), "pooled": (512,)}),
        ("fast_cifar10", {"stage1": (64, 15, 15), "pooled": (256,)}),
    ],
)
def test_stages_of_our_recipes(recipe, expected):
    shapes = stage_shapes(load_recipe(recipe).model, 10)
    assert expected.items() <= shapes.items()
    assert list(shapes)[-1] == "pooled"


@pytest.mark.parametrize("name", ["convnext_atto", "swin_tiny_patch4_window7_224", "regnetx_002", "densenet121"])
def test_timms_families_have_four_stages_whose_maps_shrink(name):
    spec = TimmModel(source="timm", name=name, weights="none", input_size=224, stem="imagenet")
    shapes = stage_shapes(spec, 10)
    sides = [shapes[f"stage{at}"][1] for at in (1, 2, 3, 4)]
    assert sides == [56, 28, 14, 7]
    assert all(len(shape) == 3 for name, shape in shapes.items() if name != "pooled")


def test_a_transformers_tokens_become_maps_without_the_class_token():
    with torch.device("meta"):
        module = timm.create_model("vit_tiny_patch16_224", num_classes=3).eval()
    taps = Taps(module, ["stage1", "stage12", "pooled"])
    module(torch.zeros(2, 3, 224, 224, device="meta"))
    assert [tuple(each.shape) for each in taps.take()] == [(2, 192, 14, 14), (2, 192, 14, 14), (2, 192)]


def test_features_are_the_networks_own_and_passes_of_the_network_itself_keep_nothing():
    module = build_model(load_recipe("resnet20_cifar10").model, num_classes=10).eval()
    before = copy.deepcopy(module.state_dict())
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    plain = module(images)
    tapped = Tapped(module, ["stage1", "pooled"])
    logits, stage, pooled = tapped(images)
    assert torch.equal(logits, plain)
    assert torch.equal(stage, module.stages[0](module.stem(images)))
    assert torch.equal(module.head(pooled), plain)
    assert torch.equal(module(images), plain)
    assert not tapped._taps._found
    assert list(tapped.parameters()) == list(module.parameters())
    assert module.state_dict().keys() == before.keys()


def test_a_tap_that_is_removed_leaves_no_hook():
    module = nn.Sequential()
    module.add_module("stem", nn.Linear(2, 2))
    module.add_module("stages", nn.Sequential(nn.Linear(2, 2)))
    module.add_module("head", nn.Linear(2, 2))
    assert stage_modules(module) == {"stem": "stem", "stage1": "stages.0"}
    taps = Taps(module, ["stem", "stage1", "pooled"])
    module(torch.zeros(1, 2))
    assert len(taps.take()) == 3
    taps.remove()
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in module.modules())


class _Shared(nn.Module):
    """A block as torchvision writes them: one ReLU, used twice, and in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def sum(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv2(torch.relu(self.conv1(x))) + x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.conv2(self.relu(self.conv1(x))) + x)


class _Plain(_Shared):
    """The same with a function at its end: no module tells where."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.sum(x))


def _net(block: type[_Shared]) -> nn.Module:
    module = nn.Module()
    module.stages = nn.Sequential(block(), block())  # type: ignore[assignment]
    module.head = nn.Linear(4, 3)  # type: ignore[assignment]
    module.forward = lambda x: module.head(module.stages(x).mean((2, 3)))  # type: ignore[method-assign, assignment]
    return module


def test_before_a_shared_activation_in_place_with_its_gradient() -> None:
    module = _net(_Shared)
    images = torch.randn(2, 4, 5, 5)
    by_hand = module.stages[1].sum(module.stages[0](images))
    (by_hand**2).sum().backward()
    expected = [each.grad.clone() for each in module.stages.parameters()]
    module.zero_grad()
    taps = Taps(module, ["stage2.preact", "stage2"])
    module(images)
    preact, stage = taps.take()
    torch.testing.assert_close(preact, by_hand)
    assert torch.equal(torch.relu(preact), stage)
    assert (preact < 0).any(), "a copy from before"
    (preact**2).sum().backward()
    torch.testing.assert_close([each.grad for each in module.stages.parameters()], expected)
    taps.remove()
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in module.modules())


def test_a_stage_that_ends_in_no_module_has_none() -> None:
    taps = Taps(_net(_Plain), ["stage1.preact", "stage1"], proves=True)
    taps._module(torch.randn(2, 4, 5, 5))
    assert set(taps.taken()) == {"stage1"}


class _Dropped(_Shared):
    """Dropout behind the activation, which does nothing when it answers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(super().forward(x), 0.5, training=self.training)


def test_dropout_behind_the_activation_changes_nothing_of_what_entered_it() -> None:
    module, images = _net(_Dropped), torch.randn(2, 4, 5, 5)
    for training in (False, True):
        taps = Taps(module.train(training), ["stage1.preact"])
        module(images)
        torch.testing.assert_close(taps.take()[0], module.stages[0].sum(images))
        taps.remove()


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("resnet18", {1, 2, 3, 4}),
        ("resnet50", {1, 2, 3, 4}),
        ("regnetx_002", {1, 2, 3, 4}),
        ("efficientnet_lite0", set()),
    ],
)
def test_timms_stages_end_in_an_activation_or_not(name: str, ends: set[int]) -> None:
    spec = TimmModel(source="timm", name=name, weights="none", input_size=64, stem="imagenet")
    shapes = stage_shapes(spec, 10, preact=True)
    found = {each for each in shapes if each.endswith(".preact") and each.startswith("stage")}
    assert found == {f"stage{at}.preact" for at in ends}
    assert all(shapes[each] == shapes[each.removesuffix(".preact")] for each in found)


@pytest.mark.parametrize("recipe", ["resnet56_cifar100", "vgg8_cifar100", "r18_small"])
def test_our_stages_end_in_an_activation(recipe: str) -> None:
    spec = load_recipe(recipe).model
    plain, both = stage_shapes(spec, 10), stage_shapes(spec, 10, preact=True)
    stages = [name for name in plain if name.startswith("stage")]
    assert [name for name in both if name.endswith(".preact") and name != "stem.preact"] == [
        f"{s}.preact" for s in stages
    ]
    module = build_model(spec, num_classes=10).eval()
    taps = Taps(module, [each for stage in stages for each in (stage, f"{stage}.preact")])
    module(torch.randn(2, 3, 32, 32))
    found = taps.taken()
    for stage in stages:
        assert torch.equal(torch.relu(found[f"{stage}.preact"]), found[stage])


def test_of_a_wide_residual_network_sums_have_no_activation_and_the_last_stage_has() -> None:
    shapes = stage_shapes(load_recipe("wrn_16_2_cifar100").model, 10, preact=True)
    assert [name for name in shapes if name.endswith(".preact")] == ["stage3.preact"]


def test_passes_of_the_network_itself_copy_nothing() -> None:
    module = build_model(load_recipe("resnet20_cifar10").model, num_classes=10).eval()
    tapped = Tapped(module, ["stage3.preact"])
    images = torch.randn(2, 3, 32, 32)
    logits, preact = tapped(images)
    assert torch.equal(logits, module(images))
    torch.testing.assert_close(module.head(torch.relu(preact).mean((2, 3))), logits)
    assert tapped._taps._lasts[0]._input is None
