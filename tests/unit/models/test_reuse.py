"""A student that ends in its teacher's classifier."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from distill.errors import RecipeError, UsageError
from distill.models import build_model, params_of
from distill.models.reuse import copy_classifier
from distill.models.taps import stage_shapes
from distill.recipe import load_recipe


def fitted(name, width):
    return load_recipe(name).model.model_copy(update={"reuse": width})


@pytest.mark.parametrize(("name", "last"), [("resnet20_cifar10", "stage3"), ("resnet10t_cifar10", "stage4")])
def test_the_last_stage_and_the_classifier_are_as_wide_as_the_teachers(name, last):
    spec = fitted(name, 48)
    shapes, before = stage_shapes(spec, 10), stage_shapes(load_recipe(name).model, 10)
    assert shapes[last] == (48, *before[last][1:])
    assert shapes["pooled"] == (48,)
    channels = before[last][0]
    projector = channels * 24 + 9 * 24 * 24 + 24 * 48 + 2 * (24 + 24 + 48)
    assert params_of(spec, 10) - params_of(load_recipe(name).model, 10) == projector + (48 - channels) * 10


def test_the_classifier_is_the_teachers_and_learns_nothing():
    teacher = build_model(load_recipe("resnet56_cifar10").model, num_classes=10, seed=1)
    student = build_model(fitted("resnet20_cifar10", 64), num_classes=10, seed=2)
    copy_classifier(student, teacher)
    assert torch.equal(student.head.weight, teacher.head.weight)
    student(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))).sum().backward()
    assert student.head.weight.grad is None
    others = [p for name, p in student.named_parameters() if not name.startswith("head.")]
    assert all(p.grad is not None for p in others)


def test_another_width_is_refused():
    teacher = build_model(load_recipe("resnet56_cifar10").model, num_classes=10)
    student = build_model(fitted("resnet20_cifar10", 32), num_classes=10)
    with pytest.raises(RecipeError, match="of the student's shape"):
        copy_classifier(student, teacher)


def test_a_network_without_such_an_end_is_refused():
    with pytest.raises(UsageError, match="no last stage with a linear classifier"):
        build_model(fitted("fast_cifar10", 32), num_classes=10)
    assert isinstance(build_model(fitted("resnet20_cifar10", 32), num_classes=10).stages[-1], nn.Sequential)
