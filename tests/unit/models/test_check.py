"""What a network cannot do is said before anything is made, and what is said is true."""

from __future__ import annotations

import json
import re

import pytest
import torch
from torch import nn

from distill.errors import RecipeError, UsageError
from distill.models import build_model, check_network, meta_model, stages
from distill.models import check as module
from distill.models.check import leaves_weights_unused
from distill.recipe import load_recipe
from distill.recipe.schema import Recipe


def _recipe(optim: dict | None = None, train: dict | None = None, **model) -> Recipe:
    tree = {
        "name": "mine", "role": "teacher", "data": {"name": "cifar10"}, "optim": {"name": "sgd", **(optim or {})},
        "train": train or {}, "model": {"source": "timm", "weights": "none", **model},
    }  # fmt: skip
    return Recipe.model_validate_json(json.dumps(tree))


def _goes_through(recipe: Recipe, side: int) -> bool:
    """The truth: real weights, a real image, on the CPU."""
    spec = recipe.model.model_copy(update={"input_size": side})
    try:
        with torch.no_grad():
            return build_model(spec, num_classes=10).eval()(torch.zeros(1, 3, side, side)).shape == (1, 10)
    except (RuntimeError, AssertionError, UsageError):
        return False


@pytest.mark.parametrize(
    ("name", "side", "fits"),
    [
        ("crossvit_tiny_240", 32, 240),
        ("efficientformer_l1", 64, 224),
        ("gcvit_xxtiny", 16, 32),
        ("halonet26t", 32, 256),
        ("inception_v3", 64, 96),
    ],
)
def test_a_size_that_a_network_cannot_take(name: str, side: int, fits: int) -> None:
    recipe = _recipe(name=name, input_size=side)
    with pytest.raises(RecipeError, match=rf"{name}.* images of {side} pixels") as caught:
        check_network(recipe, 10)
    assert "\n" not in caught.value.message
    told = caught.value.hint
    assert told.endswith(f"--set model.input_size={fits}")
    sizes = [int(number) for number in re.findall(r"\d+", told.partition(":")[2].partition("(")[0])]
    assert fits in sizes
    assert not _goes_through(recipe, side)
    assert _goes_through(recipe, fits)


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("efficientvit_m0", 32),
        ("efficientvit_m0", 64),
        ("pvt_v2_b0", 32),
        ("pvt_v2_b0", 50),  # patches of 7 pixels, 4 apart
        ("xcit_nano_12_p8_224", 32),
        ("xcit_nano_12_p16_224", 64),
    ],
)
def test_patches_that_overlap_or_are_made_by_several_layers(name: str, side: int) -> None:
    recipe = _recipe(name=name, input_size=side)
    assert check_network(recipe, 10) > 0
    assert _goes_through(recipe, side)


def test_a_network_that_no_size_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_pass_one", lambda *_args, **_options: torch.zeros(1, 7))
    with pytest.raises(RecipeError, match=r"nor of any size that was tried: its output is \(1, 7\), not \(1, 10\)"):
        check_network(_recipe(name="resnet10t"), 10)


def test_where_shapes_are_not_enough_the_cpu_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def reads_values(_module: torch.nn.Module, side: int, *, device: str) -> torch.Tensor:
        asked.append(device)
        if device == "meta":
            raise RuntimeError("Tensor.item() cannot be called on meta tensors")
        return torch.zeros(1, 10)

    monkeypatch.setattr(module, "_pass_one", reads_values)
    assert check_network(_recipe(name="resnet10t"), 10) > 0
    assert asked == ["meta", "cpu"]


def test_a_network_without_stages() -> None:
    """RDNet's groups of parameters are not implemented in timm: what needs them is refused, the rest works."""
    rdnet = {"name": "rdnet_tiny", "input_size": 32}
    with pytest.raises(AssertionError):
        stages(meta_model(_recipe(**rdnet).model, 10))
    with pytest.raises(RecipeError, match=r"mine: optim\.layer_decay needs the stages of rdnet_tiny") as caught:
        check_network(_recipe(optim={"layer_decay": 0.8}, **rdnet), 10)
    assert "backbone_lr_scale" in caught.value.hint
    plain = check_network(_recipe(**rdnet), 10)
    others = _recipe(optim={"backbone_lr_scale": 0.1}, train={"freeze_backbone_epochs": 1}, **rdnet)
    assert check_network(others, 10) == plain


def test_an_outline_is_made_once() -> None:
    """A command asks several times; a ResNet-152 takes a quarter of a second of CPU each time."""
    recipe = _recipe(name="resnet10t")
    fetched = recipe.model.model_copy(update={"weights": "pretrained", "max_params": 7})
    assert meta_model(recipe.model, 10) is meta_model(fetched, 10)
    assert meta_model(recipe.model, 10) is not meta_model(recipe.model, 11)


@pytest.mark.parametrize(
    "name", ["r18_small", "fast_cifar10", "quickstart_student", "resnet20_cifar10", "lite0_cifar100"]
)
def test_all_weights_of_our_networks_are_used(name: str) -> None:
    spec = load_recipe(name).model
    for _ in range(2):  # what is asked leaves nothing behind
        assert not leaves_weights_unused(spec)
    assert all(parameter.grad is None for parameter in meta_model(spec, 10).parameters())


def test_weights_that_the_logits_do_not_depend_on_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.other = nn.Linear(3, 10), nn.Linear(3, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x.mean(dim=(2, 3)))

    class Surprising(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x.mean(dim=(2, 3))) * float(x.sum())  # has no value there: nobody can tell

    for kind in (Net, Surprising):
        monkeypatch.setattr(module, "meta_model", lambda spec, classes, kind=kind: kind().to("meta"))
        assert leaves_weights_unused(load_recipe("r18_small").model)
