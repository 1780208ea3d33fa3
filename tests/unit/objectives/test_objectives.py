"""Objectives: every kind of the schema has a builder, and the parts add up."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import torch
from timm.loss import LabelSmoothingCrossEntropy
from torch import nn

from distill.code import offer_code
from distill.data.batches import Batch, Mix
from distill.errors import RecipeError
from distill.objectives import (
    OBJECTIVES,
    LossParts,
    NetworkOutput,
    TermContext,
    build_objective,
    cross_entropy,
    kd_loss,
    standardize_logits,
)
from distill.recipe.objectives import (
    AddedTerm,
    ATObjective,
    CTKDObjective,
    DISTObjective,
    DISTTerm,
    DKDObjective,
    FeatureTerm,
    KDObjective,
    KDTerm,
    MLKDObjective,
    MSEObjective,
    MSETerm,
    NKDObjective,
    ObjectiveSpec,
    OwnLabelsObjective,
    SupervisedObjective,
    TTMObjective,
)
from distill.teaching.objective import ObjectiveWithTeacher

from .reference import SHAPES

ROOT = Path(__file__).parents[3]
ADDED = get_args(get_args(AddedTerm)[0])
SETTING = TermContext(student=SHAPES, teacher=SHAPES, labels=torch.arange(40) % 10)
OWN = {"python", "python_labels"}  # code of the user's own, which tests/e2e/test_own_loss.py tries
SPECS = [spec for spec in get_args(get_args(ObjectiveSpec)[0])]
BUILT_IN = [spec for spec in SPECS if not OWN & set(get_args(spec.model_fields["kind"].annotation))]


def loss_of(spec, student, teacher, labels, mix=None, *, label_smoothing=0.0) -> LossParts:
    index = torch.arange(len(labels))
    batch = Batch(torch.zeros(len(labels), 3, 1, 1), labels, index, index, mix)
    objective = build_objective(spec, label_smoothing=label_smoothing)
    return objective(NetworkOutput(student), None if teacher is None else NetworkOutput(teacher), batch)


@pytest.fixture
def batch():
    student, teacher = torch.randn(2, 6, 10, generator=torch.Generator().manual_seed(1)) * 3
    return student.requires_grad_(), teacher.requires_grad_(), torch.arange(6)


def test_every_kind_of_the_schema_has_a_builder():
    kinds = {kind: spec for spec in SPECS for kind in get_args(spec.model_fields["kind"].annotation)}
    assert kinds.keys() - {"supervised"} == OBJECTIVES.keys()
    added = {kind for spec in ADDED for kind in get_args(spec.model_fields["kind"].annotation)}
    assert added == OBJECTIVES.keys() - {"simkd", "python_labels"}  # which changes the network, and asks no teacher
    on_maps = {"fitnet", "at", "nst", "fsp", "ab", "ofd", "ft", "vid", "reviewkd", "simkd"}
    on_features = on_maps | {"sp", "rkd", "pkt", "cc", "crd"}
    assert set(OBJECTIVES) == {"kd", "dkd", "dist", "mse", "nkd", "mlkd", "ttm", "ctkd"} | on_features | OWN


@pytest.mark.parametrize("spec", BUILT_IN, ids=lambda spec: spec.__name__)
def test_the_schema_and_the_objective_agree_on_whether_a_teacher_is_asked(spec):
    (kind,) = get_args(spec.model_fields["kind"].annotation)
    objective = build_objective(spec(kind=kind), SETTING)
    assert bool(objective.requires) == spec.asks_teacher
    required = objective.requires
    assert bool(required.teacher_features) == bool(required.student_features) == issubclass(spec, FeatureTerm)


def test_every_kind_is_documented():
    page = (ROOT / "docs" / "objectives.md").read_text(encoding="utf-8")
    assert all(f"| `{kind}` |" in page for kind in ("supervised", *OBJECTIVES))


def test_supervised_is_timms_smoothed_cross_entropy(batch):
    student, teacher, labels = batch
    result = loss_of(SupervisedObjective(), student, None, labels, label_smoothing=0.1)
    torch.testing.assert_close(result.loss, LabelSmoothingCrossEntropy(0.1)(student, labels))
    assert set(result.parts) == {"ce"}
    assert result.parts["ce"].item() == result.loss.item()
    ignored = loss_of(SupervisedObjective(), student, teacher, labels, label_smoothing=0.1)
    assert ignored.loss.item() == result.loss.item()


@pytest.mark.parametrize("standardize", [False, True])
def test_kd_is_the_weighted_sum_of_unweighted_parts(batch, standardize):
    student, teacher, labels = batch
    mix = Mix(partner_labels=labels.flip(0), weight=torch.full((6,), 0.25))
    spec = KDObjective(kind="kd", ce_weight=0.3, kd_weight=2.0, temperature=3.0, standardize=standardize)
    result = loss_of(spec, student, teacher, labels, mix, label_smoothing=0.2)

    ce = cross_entropy(student, labels, label_smoothing=0.2, mix=mix)
    pair = (standardize_logits(student), standardize_logits(teacher)) if standardize else (student, teacher)
    kd = kd_loss(*pair, temperature=3.0)
    assert set(result.parts) == {"ce", "kd"}
    assert result.parts["ce"].item() == ce.item()
    assert result.parts["kd"].item() == kd.item()
    assert result.loss.item() == pytest.approx(0.3 * ce.item() + 2.0 * kd.item(), rel=1e-6)


LOGIT_SPECS = [
    KDObjective(kind="kd", standardize=True),
    DKDObjective(kind="dkd", standardize=True),
    DISTObjective(kind="dist", standardize=True),
    MSEObjective(kind="mse", standardize=True),
    NKDObjective(kind="nkd", standardize=True),
    MLKDObjective(kind="mlkd", standardize=True),
    TTMObjective(kind="ttm", standardize=True),
    CTKDObjective(kind="ctkd", standardize=True),
]


@pytest.mark.parametrize("spec", LOGIT_SPECS, ids=lambda spec: spec.kind)
@pytest.mark.parametrize("standardize", [False, True])
def test_parts_are_detached_and_the_teacher_gets_no_gradient(batch, spec, standardize):
    student, teacher, labels = batch
    result = loss_of(spec.model_copy(update={"standardize": standardize}), student, teacher, labels)
    assert not any(part.requires_grad for part in result.parts.values())
    result.loss.backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_kd_without_teacher_logits_says_so(batch):
    student, _, labels = batch
    with pytest.raises(ValueError, match="kd needs a teacher's answer"):
        loss_of(KDObjective(kind="kd"), student, None, labels)


@pytest.mark.parametrize("spec", LOGIT_SPECS, ids=lambda spec: spec.kind)
def test_standardized_objectives_forget_the_scale_of_logits(batch, spec):
    student, teacher, labels = batch
    one = loss_of(spec, student, teacher, labels).parts
    other = loss_of(spec, student * 3 + 1, teacher * 0.5, labels).parts
    for name in set(one) - {"ce"}:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-5)


def test_added_terms_have_weights_of_their_own_and_their_parts_are_told(batch):
    student, teacher, labels = batch
    added = (DISTTerm(kind="dist", inter_weight=3.0, intra_weight=0.5), MSETerm(kind="mse", mse_weight=7.0))
    spec = KDObjective(kind="kd", ce_weight=0.3, kd_weight=2.0, add=added)
    result = loss_of(spec, student, teacher, labels)
    parts = {name: part.item() for name, part in result.parts.items()}
    assert list(parts) == ["ce", "kd", "inter", "intra", "mse"]
    weights = {"ce": 0.3, "kd": 2.0, "inter": 3.0, "intra": 0.5, "mse": 7.0}
    assert result.loss.item() == pytest.approx(sum(weights[name] * part for name, part in parts.items()), rel=1e-6)


def test_weights_follow_their_schedule_and_what_has_ended_is_not_worked_out(batch):
    student, teacher, labels = batch
    added = (MSETerm(kind="mse", mse_weight=8.0, ramp_epochs=4), DISTTerm(kind="dist", until_epoch=2))
    objective = build_objective(KDObjective(kind="kd", ce_weight=1.0, kd_weight=0.0, add=added))
    index = torch.arange(len(labels))
    images = Batch(torch.zeros(len(labels), 3, 1, 1), labels, index, index, None)
    seen = []
    for epoch in range(5):
        objective.begin_epoch(epoch)
        result = objective(NetworkOutput(student), NetworkOutput(teacher), images)
        rest = result.loss - result.parts["ce"] - 2 * sum(result.parts.get(name, 0.0) for name in ("inter", "intra"))
        seen.append((rest / result.parts["mse"]).item())
        assert ("inter" in result.parts) is (epoch < 2)
    assert seen == pytest.approx([2.0, 4.0, 6.0, 8.0, 8.0], rel=1e-4)


def test_a_hint_may_come_first_and_alone(batch):
    """FitNets' two stages: the hint until epoch 2, then labels and a teacher's logits."""
    student, teacher, labels = batch
    added = (MSETerm(kind="mse", mse_weight=8.0, until_epoch=2),)
    objective = build_objective(KDObjective(kind="kd", kd_weight=2.0, ce_from_epoch=3, from_epoch=4, add=added))
    index = torch.arange(len(labels))
    images = Batch(torch.zeros(len(labels), 3, 1, 1), labels, index, index, None)
    for epoch, expected in enumerate(({"mse": 8.0}, {"mse": 8.0}, {"ce": 0.1}, {"ce": 0.1, "kd": 2.0})):
        objective.begin_epoch(epoch)
        assert objective.needs_teacher is (epoch != 2)
        result = objective(NetworkOutput(student), NetworkOutput(teacher), images)
        assert result.parts.keys() == expected.keys() | {"ce"}
        total = sum(weight * result.parts[name] for name, weight in expected.items())
        torch.testing.assert_close(result.loss, total)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ce_from_epoch": 3, "from_epoch": 2}, "nothing is learned in epoch 1"),
        (
            {"ce_from_epoch": 5, "from_epoch": 4, "add": (MSETerm(kind="mse", until_epoch=2),)},
            "nothing is learned in epoch 3",
        ),
        ({"from_epoch": 3, "until_epoch": 2}, "teaches from epoch 3 on: until_epoch is 2"),
        ({"ce_weight": 0.0, "from_epoch": 2}, "nothing is learned in epoch 1"),
    ],
)
def test_an_epoch_in_which_nothing_is_learned_is_refused_by_the_schema(settings, message):
    with pytest.raises(ValueError, match=message):
        KDObjective(kind="kd", **settings)


def test_terms_that_cannot_be_are_refused_by_the_schema():
    kd = {"kind": "kd", "add": (KDTerm(kind="kd"),)}
    with pytest.raises(ValueError, match="kd is there twice"):
        KDObjective(**kd)
    with pytest.raises(ValueError, match="nothing is learned"):
        MSEObjective(kind="mse", until_epoch=3)
    with pytest.raises(ValueError, match="goes beyond until_epoch"):
        DKDObjective(kind="dkd", until_epoch=3)
    with pytest.raises(ValueError, match="python_labels: ramp_epochs 5 goes beyond until_epoch"):
        OwnLabelsObjective(kind="python_labels", name="mine:loss", ce_weight=1.0, ramp_epochs=5, until_epoch=3)


@pytest.mark.parametrize(
    ("settings", "student", "teacher", "told"),
    [
        ({"features": ("stage3",)}, SHAPES, SHAPES, "features: the student has no stage stage3"),
        (
            {"features": ("stage1",), "teacher_features": ("stage9",)},
            SHAPES,
            SHAPES,
            "teacher_features: the teacher has no stage stage9",
        ),
        ({}, SHAPES, {"pooled": (8,)}, "have no stages of the same names"),
        ({"features": ("pooled",)}, SHAPES, SHAPES, "compares maps, and pooled is"),
    ],
)
def test_stages_that_are_not_there_are_refused(settings, student, teacher, told):
    with pytest.raises(RecipeError, match=told):
        build_objective(ATObjective(kind="at", **settings), TermContext(student=student, teacher=teacher))


@pytest.mark.parametrize(
    "settings",
    [
        {"features": ("stage1", "stage1")},
        {"teacher_features": ("stage1",)},
        {"features": ("stage1", "stage2"), "teacher_features": ("stage1",)},
        {"features": ("layer1",)},
        {"features": ()},
    ],
)
def test_stages_that_are_no_pairs_are_refused_by_the_schema(settings):
    with pytest.raises(ValueError):
        ATObjective(kind="at", **settings)


def test_doctests():
    command = [sys.executable, "-m", "pytest", "--doctest-modules", "-q", "-p", "no:cacheprovider"]
    places = [str(ROOT / "distill" / "objectives"), str(ROOT / "distill" / "devices")]
    done = subprocess.run([*command, *places], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert re.search(r"[1-9][0-9]* passed", done.stdout), done.stdout


class _Scaled(nn.Module):
    """A loss with a constant that need not be saved."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(4), persistent=False)

    def forward(self, student: torch.Tensor) -> torch.Tensor:
        return (student * self.scale).square().mean()


@pytest.mark.usefixtures("no_leave")
def test_what_a_loss_brings_unsaved_comes_to_the_runs_device_too() -> None:
    spec = OwnLabelsObjective(kind="python_labels", name=offer_code(_Scaled))
    taught = ObjectiveWithTeacher(build_objective(spec, TermContext(classes=4)))
    assert taught.auxiliary is not None
    assert [tuple(each.shape) for each in taught.auxiliary.buffers()] == [(4,)]
    assert ObjectiveWithTeacher(build_objective(SupervisedObjective())).auxiliary is None
