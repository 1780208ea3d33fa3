"""The registry: every kind of the schema has a builder, and the parts add up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest
import torch
from timm.loss import LabelSmoothingCrossEntropy

from distill.objectives import OBJECTIVES, build_loss, cross_entropy, kd_loss, standardize_logits
from distill.recipe.schema import KDObjective, ObjectiveSpec, SupervisedObjective

ROOT = Path(__file__).parents[3]


@pytest.fixture
def batch():
    student, teacher = torch.randn(2, 6, 10, generator=torch.Generator().manual_seed(1)) * 3
    return student.requires_grad_(), teacher.requires_grad_(), torch.arange(6)


def test_every_kind_of_the_schema_has_a_builder():
    union = get_args(ObjectiveSpec)[0]
    assert {kind for spec in get_args(union) for kind in get_args(spec.model_fields["kind"].annotation)} == set(
        OBJECTIVES
    )
    assert set(OBJECTIVES) == {"supervised", "kd"}


def test_every_kind_is_documented():
    page = (ROOT / "docs" / "objectives.md").read_text(encoding="utf-8")
    assert all(f"| `{kind}` |" in page for kind in OBJECTIVES)


def test_supervised_is_timms_smoothed_cross_entropy(batch):
    student, teacher, labels = batch
    result = build_loss(SupervisedObjective(), label_smoothing=0.1)(student, None, labels, None)
    torch.testing.assert_close(result.loss, LabelSmoothingCrossEntropy(0.1)(student, labels))
    assert set(result.parts) == {"ce"}
    assert result.parts["ce"].item() == result.loss.item()
    ignored = build_loss(SupervisedObjective(), label_smoothing=0.1)(student, teacher, labels, None)
    assert ignored.loss.item() == result.loss.item()


@pytest.mark.parametrize("standardize", [False, True])
def test_kd_is_the_weighted_sum_of_unweighted_parts(batch, standardize):
    student, teacher, labels = batch
    mix = SimpleNamespace(partner_labels=labels.flip(0), weight=torch.full((6,), 0.25))
    spec = KDObjective(kind="kd", ce_weight=0.3, kd_weight=2.0, temperature=3.0, standardize=standardize)
    result = build_loss(spec, label_smoothing=0.2)(student, teacher, labels, mix)

    ce = cross_entropy(student, labels, label_smoothing=0.2, mix=mix)
    pair = (standardize_logits(student), standardize_logits(teacher)) if standardize else (student, teacher)
    kd = kd_loss(*pair, temperature=3.0)
    assert set(result.parts) == {"ce", "kd"}
    assert result.parts["ce"].item() == ce.item()
    assert result.parts["kd"].item() == kd.item()
    assert result.loss.item() == pytest.approx(0.3 * ce.item() + 2.0 * kd.item(), rel=1e-6)


def test_parts_are_detached_and_the_teacher_gets_no_gradient(batch):
    student, teacher, labels = batch
    result = build_loss(KDObjective(kind="kd", standardize=True))(student, teacher, labels, None)
    assert not any(part.requires_grad for part in result.parts.values())
    result.loss.backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_kd_without_teacher_logits_says_so(batch):
    student, _, labels = batch
    with pytest.raises(ValueError, match="kd needs teacher logits"):
        build_loss(KDObjective(kind="kd"))(student, None, labels, None)


def test_doctests():
    command = [sys.executable, "-m", "pytest", "--doctest-modules", "-q", "-p", "no:cacheprovider"]
    places = [str(ROOT / "distill" / "objectives"), str(ROOT / "distill" / "devices")]
    done = subprocess.run([*command, *places], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout, done.stdout
