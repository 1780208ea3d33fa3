"""Every published size, pinned."""

from __future__ import annotations

import json

import pytest

from distill.errors import BudgetError, UsageError
from distill.models import build_model, check_budget, count_params, params_of
from distill.recipe.schema import Recipe

R3323 = {"blocks": [3, 3, 2, 3], "channels": [64, 128, 128, 256], "strides": [1, 2, 2, 2], "pool": 4}
CIFAR = {"channels": [16, 32, 64], "strides": [1, 2, 2]}
COUNTS = {
    "r3323": (10, {"source": "students", "name": "resnet", **R3323}, 4_935_242),
    "r3323 global pool": (10, {"source": "students", "name": "resnet", **R3323, "pool": None}, 4_935_242),
    "r453": (
        10,
        {"source": "students", "name": "resnet", "blocks": [4, 5, 3], "channels": [64, 128, 256],
         "strides": [1, 2, 2], "stem_channels": 64, "pool": 8},
        4_992_586,
    ),
    "r222": (
        10, {"source": "students", "name": "resnet", "blocks": [2, 2, 2], "skip_kernel": 3, "pool": 8, **CIFAR}, 195_738
    ),
    "resnet20": (10, {"source": "students", "name": "resnet", "blocks": [3] * 3, "skip": "pad", **CIFAR}, 269_722),
    "resnet56": (10, {"source": "students", "name": "resnet", "blocks": [9] * 3, "skip": "pad", **CIFAR}, 853_018),
    "grouped": (100, {"source": "students", "name": "grouped_resnet"}, 4_035_364),
    "lenet": (10, {"source": "students", "name": "lenet"}, 62_006),
    "cnn": (10, {"source": "students", "name": "cnn"}, 122_570),
    # those of the study of distillation whose pairs are recipes (arXiv:1910.10699)
    "vgg8": (100, {"source": "students", "name": "vgg"}, 3_965_028),
    "vgg13": (100, {"source": "students", "name": "vgg", "convolutions": [2] * 5}, 9_462_180),
    "resnet110": (100, {"source": "students", "name": "resnet", "blocks": [18] * 3, **CIFAR}, 1_736_564),
    "resnet32": (100, {"source": "students", "name": "resnet", "blocks": [5] * 3, **CIFAR}, 472_756),
    "wrn_40_1": (
        100,
        {"source": "students", "name": "resnet", "blocks": [6] * 3, **CIFAR, "stem_channels": 16,
         "pre_activation": True},
        569_780,
    ),
    "resnet9": (10, {"source": "teachers", "name": "resnet9", "dropout": 0.2}, 6_575_370),
    "resnet10t": (10, {"source": "timm", "name": "resnet10t", "stem": "cifar"}, 4_903_242),
    "resnet152": (10, {"source": "timm", "name": "resnet152", "stem": "cifar"}, 58_156_618),
    "resnetv2_152 conv head": (
        10, {"source": "timm", "name": "resnetv2_152", "weights": "none", "head": "conv", "dropout": 0.5}, 58_829_066
    ),
    "resnet18": (100, {"source": "timm", "name": "resnet18.tv_in1k", "input_size": 224}, 11_227_812),
    # features 14,714,688; 7x7x512 -> 4096 -> 4096 -> 10
    "vgg16": (10, {"source": "timm", "name": "vgg16"}, 14_714_688 + 25_088 * 4096 + 4096 + 4096 * 4097 + 40_970),
}  # fmt: skip


@pytest.mark.parametrize("name", COUNTS)
def test_published_sizes(spec, name):
    num_classes, fields, count = COUNTS[name]
    assert params_of(spec(**fields), num_classes) == count


@pytest.mark.parametrize("name", ["r222", "resnet20", "grouped", "lenet", "cnn", "vgg8"])
def test_counting_without_weights_equals_a_real_network(spec, name):
    num_classes, fields, count = COUNTS[name]
    assert count_params(build_model(spec(**fields), num_classes=num_classes)) == count


def _recipe(**model):
    tree = {
        "name": "r18_wide", "role": "student", "data": {"name": "cifar100"},
        "teacher": {"run": "resnet152_cifar100"}, "objective": {"kind": "kd"},
        "model": {"source": "students", "name": "resnet", **R3323, **model},
    }  # fmt: skip
    return Recipe.model_validate_json(json.dumps(tree))


def test_a_student_over_budget_is_refused():
    with pytest.raises(BudgetError) as caught:
        check_budget(_recipe(blocks=[3, 3, 3, 3]), 100)
    assert caught.value.message == "r18_wide: 5,253,796 parameters, over the budget of 5,000,000"
    assert "model.max_params=5253796" in caught.value.hint


def test_a_student_within_budget_tells_its_size():
    assert check_budget(_recipe(), 10) == 4_935_242
    assert check_budget(_recipe(blocks=[3, 3, 3, 3], max_params=5_253_796), 100) == 5_253_796


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"source": "timm", "name": "resnet_15"}, "did you mean resnet152"),
        ({"source": "timm", "name": "resnet18.tv_in1kk"}, "resnet18.tv_in1k"),
        ({"source": "timm", "name": "hub:timm/resnet18"}, "timm has no model"),
        ({"source": "timm", "name": "vit_tiny_patch16_224", "stem": "cifar"}, "stem: cifar is for timm's ResNets"),
        ({"source": "timm", "name": "vgg11", "head": "conv"}, "head: conv is for timm's ResNets"),
        ({"source": "timm", "name": "resnet18", "patch_size": 4}, "patch_size"),
        ({"source": "timm", "name": "vit_tiny_patch16_224", "input_size": 40}, "no multiple of its patches' 16 pixels"),
        ({"source": "students", "name": "lenet", "input_size": 12}, "input_size 12 is too small"),
        ({"source": "students", "name": "cnn", "input_size": 8}, "input_size 8 is too small"),
        ({"source": "students", "name": "grouped_resnet", "input_size": 16}, "pool 4 is larger than the last map, 2x2"),
        ({"source": "teachers", "name": "resnet9", "input_size": 7}, "input_size 7 is too small"),
    ],
)
def test_impossible_networks_are_usage_errors(spec, fields, said):
    with pytest.raises(UsageError, match=said.replace("(", r"\(")):
        params_of(spec(**fields), 10)
