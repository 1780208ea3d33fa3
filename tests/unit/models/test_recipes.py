"""Every shipped recipe: its network can be built, has the size its header quotes, and fits its budget."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill.models import check_budget
from distill.recipe import bundled_recipes, load_recipe
from distill.runs.released import released_networks

CLASSES = {"cifar10": 10, "cifar100": 100, "digits": 10, "folder": 10}
COUNTS = {
    "cnn_cifar10": 122_570,
    "fast_cifar10": 1_971_352,
    "fast_cifar100": 1_994_392,
    "fast_cifar100_kd": 1_994_392,
    "fast_cifar100_lite2_kd": 1_994_392,
    "fast_cifar100_short": 1_994_392,
    "fast_cifar100_short_lite2_kd": 1_994_392,
    "fast_cifar10_kd": 1_971_352,
    "fast_cifar10_long": 1_971_352,
    "fast_cifar10_short": 1_971_352,
    "fast_cifar10_short_kd": 1_971_352,
    "fast_cifar10_long_kd": 1_971_352,
    "fast_cifar100_long": 1_994_392,
    "fast_cifar100_long_kd": 1_994_392,
    "fast_cifar10_short_lite2_kd": 1_971_352,
    "fast_cifar10_short_soft_kd": 1_971_352,
    "fast_cifar10_soft": 1_971_352,
    "fast_small_cifar10": 146_136,
    "fast_small_cifar100": 151_896,
    "fast_small_cifar100_kd": 151_896,
    "fast_small_cifar10_kd": 146_136,
    "fast_small_cifar10_soft_kd": 146_136,
    "few_fast_cifar10": 1_971_352,
    "few_fast_cifar10_kd": 1_971_352,
    "few_lite0_cifar10": 3_383_818,
    "few_fast_cifar100": 1_994_392,
    "few_fast_cifar100_kd": 1_994_392,
    "few_lite0_cifar100": 3_499_108,
    "grouped_resnet_cifar100": 4_035_364,
    "lenet_cifar10": 62_006,
    "lite0_cifar10": 3_383_818,
    "lite0_cifar100": 3_499_108,
    "lite2_cifar10": 4_823_882,
    "lite2_cifar100": 4_939_172,
    "lite2_cifar100_cutmix": 4_939_172,
    "lite2_cifar10_cutmix": 4_823_882,
    "quickstart_scratch": 1_506,
    "quickstart_student": 1_506,
    "quickstart_teacher": 78_042,
    "r121_step": 1_523_018,
    "r18_small": 4_935_242,
    "r18_small_cifar100": 4_958_372,
    "r18_small_scratch": 4_935_242,
    "r222_adam": 195_738,
    "r222_adam_augment": 195_738,
    "r222_adam_constant": 195_738,
    "r222_adam_dropout": 195_738,
    "r222_adam_augment_kd": 195_738,
    "r222_adam_kd": 195_738,
    "r222_sgd": 195_738,
    "r222_sgd_constant": 195_738,
    "r3323_adadelta": 4_935_242,
    "r3323_adagrad": 4_935_242,
    "r3323_adam": 4_935_242,
    "r3323_plateau": 4_935_242,
    "r3323_radam": 4_935_242,
    "r3323_restarts": 4_935_242,
    "r3323_restarts_kd": 4_935_242,
    "r3323_step": 4_935_242,
    "r453": 4_992_586,
    "r453_kd": 4_992_586,
    "resnet10t_cifar10": 4_903_242,
    "resnet152_cifar10": 58_156_618,
    "resnet152_cifar100": 58_341_028,
    "resnet152_cifar10_scratch": 58_156_618,
    "resnet18_cifar100": 11_227_812,
    "resnet20_cifar10": 269_722,
    "resnet56_cifar10": 853_018,
    # in arXiv:1910.10699's code, by its own count
    "resnet20_cifar100": 278_324,
    "resnet20_cifar100_kd": 278_324,
    "resnet56_cifar100": 861_620,
    "resnet8x4_cifar100": 1_233_540,
    "resnet8x4_cifar100_kd": 1_233_540,
    "vgg13_cifar100": 9_462_180,
    "vgg8_cifar100": 3_965_028,
    "vgg8_cifar100_kd": 3_965_028,
    "resnet32x4_cifar100": 7_433_860,
    "wrn_16_2_cifar100": 703_284,
    "wrn_16_2_cifar100_kd": 703_284,
    "wrn_40_2_cifar100": 2_255_156,
    "resnet9_cifar10": 6_575_370,
    "resnetv2_152_cifar10": 58_829_066,
    "vgg16_bn_cifar10": 134_309_962,
    "vgg16_bn_rmsprop": 134_309_962,
    "vgg16_cifar10": 134_301_514,
    "vit_tiny_cifar10": 5_526_346,
    "vit_tiny_cifar10_scratch": 5_362_762,
}


def _header(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    return "\n".join(lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))])


def test_no_recipe_is_missing_here():
    assert set(bundled_recipes()) == set(COUNTS)


@pytest.mark.parametrize("name", COUNTS)
def test_size_header_and_budget(name):
    path = Path(bundled_recipes()[name])
    recipe, header = load_recipe(str(path)), _header(path)
    assert recipe.name == path.stem == name
    assert check_budget(recipe, CLASSES[recipe.data.name]) == COUNTS[name]
    assert f"{COUNTS[name]:,}" in header
    command = "teacher-finetune" if recipe.role == "teacher" else "student"
    assert f"distill {command} --recipe {name}" in header
    assert "Expect:" in header or "Published:" in header
    assert max(map(len, path.read_text(encoding="utf-8").splitlines())) <= 120


@pytest.mark.parametrize(
    "name",
    [
        n
        for n in COUNTS
        if (n.endswith("_kd") or n.startswith(("r18_small", "quickstart_s"))) and not n.endswith("_scratch")
    ],
)
def test_students_name_a_teacher_that_is_a_recipe_or_comes_trained(name):
    recipe = load_recipe(name)
    assert recipe.role == "student"
    runs = [recipe.teacher.run] if recipe.teacher.run else [bank.run for bank in recipe.teacher.banks]
    assert runs
    for teacher in (load_recipe(run.partition("/")[0]) for run in runs):
        assert teacher.role == "teacher" or teacher.name in released_networks()
        assert teacher.data.name == recipe.data.name


def test_quickstart_students_differ_in_their_loss_alone():
    taught, alone = (load_recipe(f"quickstart_{name}").model_dump() for name in ("student", "scratch"))
    assert {key for key in taught if taught[key] != alone[key]} == {"name", "role", "teacher", "objective"}
    taught, alone = (load_recipe(f"r18_small{name}").model_dump() for name in ("", "_scratch"))
    assert {key for key in taught if taught[key] != alone[key]} == {"name", "role", "teacher", "objective"}
