"""In which precision ``auto`` trains, by the network and by what the CPU has."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from distill.errors import UsageError
from distill.models import meta_model
from distill.pipeline.precision import bf16_pays, training_precision
from distill.pipeline.resolve import resolve_train
from distill.recipe import load_recipe

CPU = torch.device("cpu")


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distill.devices.arithmetic._has_native_bf16", lambda device: True)


@pytest.mark.parametrize(
    ("name", "pays"),
    [
        # as measured, docs/results/precision.json: the ratios are 1.8, 2.0, 1.5, 1.4, 1.1 and, depthwise, 0.6
        ("fast_cifar10", True), ("r18_small", True), ("resnet20_cifar10", True), ("cnn_cifar10", True),
        ("lenet_cifar10", False), ("lite0_cifar10", False),
    ],
)  # fmt: skip
def test_the_rule_agrees_with_what_was_measured(name: str, pays: bool) -> None:
    recipe = load_recipe(name)
    assert bf16_pays(meta_model(recipe.model, 10), recipe.model.input_size)[0] is pays


def test_networks_with_3d_convolutions_stay_in_fp32() -> None:
    """Their gradients in bf16 are not always finite; test_families.py trains a step of the real one."""
    layers = nn.Conv2d(3, 64, 3), nn.Unflatten(1, (1, 64)), nn.Conv3d(1, 64, 3)
    pays, why = bf16_pays(nn.Sequential(*layers), 64)
    assert not pays
    assert "layer 2 is a 3-d convolution" in why


@pytest.mark.usefixtures("native")
def test_auto_takes_bf16_where_it_pays_tells_so_and_records_it() -> None:
    notes = []
    train, choices = resolve_train(load_recipe("fast_cifar10"), CPU, num_classes=10, tell=notes.append)
    assert (train.precision, choices["train.precision"]) == ("bf16", "bf16")
    assert "118 MMACs" in choices["train.precision_why"]
    assert any(note.message.startswith("trains in bf16") for note in notes)
    again, _ = resolve_train(load_recipe("fast_cifar10"), CPU, num_classes=10, tell=notes.append)
    assert again == train


@pytest.mark.usefixtures("native")
def test_what_the_recipe_names_stands() -> None:
    recipe = load_recipe("fast_cifar10", ["train.precision=fp32"])
    assert training_precision(recipe, CPU, classes=10).name == "fp32"
    assert training_precision(load_recipe("lenet_cifar10"), CPU, classes=10).name == "fp32"


def test_a_cpu_without_bf16_trains_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distill.devices.arithmetic._has_native_bf16", lambda device: False)
    chosen = training_precision(load_recipe("fast_cifar10"), CPU, classes=10)
    assert (chosen.name, chosen.why, chosen.warning) == ("fp32", None, None)


def test_rounded_weights_are_refused_where_pytorch_has_no_kernels_for_them() -> None:
    recipe = load_recipe("fast_cifar10", ["train.fake_quantize=8"])
    with pytest.raises(UsageError, match="fake_quantize cannot be had on mps"):
        resolve_train(recipe, torch.device("mps"), num_classes=10, tell=lambda note: None)
