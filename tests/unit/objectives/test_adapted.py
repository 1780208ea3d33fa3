"""fitnet, vid, crd, reviewkd: their losses against float64 NumPy and torchdistill, and what they own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from distill.data.batches import Batch, OnHost
from distill.errors import RecipeError
from distill.objectives import NetworkOutput, TermContext, build_objective
from distill.objectives import crd as module
from distill.objectives.adapters import projection
from distill.objectives.crd import CRD, contrast_loss
from distill.objectives.fitnet import FitNet, hint_loss
from distill.objectives.reviewkd import ReviewKD, hcl_loss
from distill.objectives.vid import vid_loss
from distill.recipe.objectives import CRDObjective, CRDTerm, FitNetTerm, ReviewKDTerm, VIDObjective

from .reference import answer, assert_equals

STUDENT = {"stage1": (4, 8, 8), "stage2": (6, 4, 4), "pooled": (6,)}
TEACHER = {"stage1": (8, 8, 8), "stage2": (16, 2, 2), "pooled": (16,)}
LABELS = torch.arange(30) % 3
SETTING = TermContext(student=STUDENT, teacher=TEACHER, labels=LABELS, seed=7)


def batch(index=(0, 4, 8, 20)):
    index = torch.tensor(index)
    return Batch(torch.zeros(len(index), 3, 1, 1), LABELS[index], index, index, None)


def numpy_hcl(student: np.ndarray, teacher: np.ndarray) -> float:
    def pool(maps: np.ndarray, side: int) -> np.ndarray:
        k = maps.shape[2] // side
        return maps.reshape(*maps.shape[:2], side, k, side, k).mean(axis=(3, 5))

    sizes = [student.shape[2], *(side for side in (4, 2, 1) if side < student.shape[2])]
    weights = 0.5 ** np.arange(len(sizes))
    squares = [((pool(student, side) - pool(teacher, side)) ** 2).mean() for side in sizes]
    return float((weights * squares).sum() / weights.sum())


@pytest.fixture
def maps():
    return np.random.default_rng(5).normal(size=(2, 2, 3, 4, 4))


@pytest.mark.parametrize(
    ("loss", "reference"), [(hint_loss, lambda s, t: float(((s - t) ** 2).mean())), (hcl_loss, numpy_hcl)]
)
def test_values_and_gradients_are_numpys(maps, loss, reference):
    assert_equals(loss, reference, *maps)


def test_vid_is_the_likelihood_of_a_gaussian(maps):
    variance = np.array([0.5, 2.0, 1.0]).reshape(3, 1, 1)

    def reference(mean: np.ndarray, teacher: np.ndarray) -> float:
        density = np.exp(-((mean - teacher) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
        return float(-(np.log(density)).mean() - 0.5 * np.log(2 * np.pi))

    fixed = torch.from_numpy(variance).float()
    assert_equals(lambda mean, teacher: vid_loss(mean, fixed, teacher), reference, *maps)


def test_crds_estimate_is_numpys():
    scores = np.random.default_rng(0).uniform(0.001, 0.2, size=(4, 9))
    noise = 8 / 50

    def reference(own: np.ndarray, _: np.ndarray) -> float:
        found = np.log(own[:, 0] / (own[:, 0] + noise + 1e-7)).sum()
        return float(-(found + np.log(noise / (own[:, 1:] + noise + 1e-7)).sum()) / len(own))

    assert_equals(lambda own, _: contrast_loss(own, images=50), reference, scores, scores)


def test_equal_torchdistill(maps):
    theirs = pytest.importorskip("torchdistill.losses.mid_level")
    student, teacher = (torch.from_numpy(each).float() for each in maps)
    hcl = theirs.HierarchicalContextLoss("s", "output", "t", "output")
    expected = hcl({"s": {"output": (student, None)}}, {"t": {"output": teacher}})
    torch.testing.assert_close(hcl_loss(student, teacher), expected, rtol=1e-5, atol=1e-6)
    variance = torch.tensor([0.5, 2.0, 1.0]).view(3, 1, 1)
    pair = {"p": {"student": {"io": "output", "path": "s"}, "teacher": {"io": "output", "path": "t"}}}
    vid = theirs.VIDLoss(pair)({"s": {"output": (student, variance)}}, {"t": {"output": teacher}})
    torch.testing.assert_close(vid_loss(student, variance, teacher), vid, rtol=1e-5, atol=1e-6)


def test_a_perfect_regressor_makes_no_loss():
    term = FitNet(FitNetTerm(kind="fitnet"), SETTING)
    student = answer(STUDENT, 0)
    assert term.requires.teacher_features == ("stage1",)
    with torch.no_grad():
        target = term.regressors[0](student.features["stage1"])
    assert term.losses(student, NetworkOutput(student.logits, {"stage1": target}), batch())["fitnet"] == 0.0


@pytest.mark.parametrize("kind", [VIDObjective, CRDObjective])
def test_what_it_owns_depends_on_the_seed_alone(kind):
    spec = kind(kind=kind.model_fields["kind"].annotation.__args__[0])
    before = torch.random.get_rng_state()
    one, two = (build_objective(spec, SETTING).state_dict() for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_reviewkd_hands_later_stages_to_earlier_ones():
    term = ReviewKD(ReviewKDTerm(kind="reviewkd"), SETTING)
    student, teacher = answer(STUDENT, 0), answer(TEACHER, 1)
    student.features["stage2"].requires_grad_()
    for parameter in term.fusions[1].widen.parameters():
        parameter.detach_()
    with torch.no_grad():
        teacher.features["stage2"].copy_(term.fusions[1](student.features["stage2"], None, (2, 2))[0])
    term.losses(student, teacher, batch())["reviewkd"].backward()
    assert student.features["stage2"].grad.abs().sum() > 0  # by way of stage1 alone: its own loss is 0
    assert term.fusions[1].weigh is None
    assert isinstance(term.fusions[0].weigh, nn.Sequential)


# CRD


def crd(**settings):
    torch.manual_seed(0)
    return CRD(CRDTerm(kind="crd", dimensions=5, negatives=40, **settings), SETTING)


def test_crd_compares_with_images_of_other_classes_each_as_often():
    drawn = crd()._others.draw(torch.arange(30), 3000, torch.Generator().manual_seed(0))
    assert not (LABELS[drawn] == LABELS[:, None]).any()
    counts = drawn[0].bincount(minlength=30)[LABELS != 0]
    assert (counts.float() / 3000 - 1 / 20).abs().max() < 0.02  # twenty others; six standard deviations


def test_crds_scores_are_the_products_with_the_images_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read one by one or all at once: float64 NumPy's, with the same gradient."""
    generator = np.random.default_rng(0)
    features, memory = generator.normal(size=(4, 5)), generator.normal(size=(30, 5))
    compared = generator.integers(0, 30, (4, 7))
    expected = np.einsum("be,bke->bk", features, memory[compared])
    for many in (1, 1000):
        monkeypatch.setattr(module, "_LARGE_MEMORY", many)
        told = torch.from_numpy(features).requires_grad_()
        scores = module._products(told, torch.from_numpy(memory), torch.from_numpy(compared))
        np.testing.assert_allclose(scores.detach().numpy(), expected, rtol=1e-12)
        scores.sum().backward()
        np.testing.assert_allclose(told.grad.numpy(), memory[compared].sum(axis=1), rtol=1e-12)


def test_crd_draws_without_asking_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    term, known = crd(), batch()
    index = known.index.numpy()
    expected = crd()._drawn(known)
    known = replace(known, on_host=OnHost(index, np.zeros_like(index)))
    monkeypatch.setattr(torch.Tensor, "cpu", None)
    assert torch.equal(term._drawn(known), expected)


def test_crd_remembers_unit_vectors_of_the_images_it_saw_alone():
    term = crd(momentum=0.25)
    before = term.memory_student.clone()
    student, teacher = answer(STUDENT, 0), answer(TEACHER, 1)
    term.losses(student, teacher, batch())
    seen = torch.tensor([0, 4, 8, 20])
    rest = torch.ones(30, dtype=torch.bool).index_fill(0, seen, False)
    assert torch.equal(term.memory_student[rest], before[rest])
    with torch.no_grad():
        embedded = nn.functional.normalize(term.embed_student(student.features["pooled"]), dim=1)
    expected = nn.functional.normalize(0.25 * before[seen] + 0.75 * embedded, dim=1)
    torch.testing.assert_close(term.memory_student[seen], expected)


def test_crd_goes_on_as_if_it_had_never_stopped():
    whole, half, rest = crd(), crd(), crd()
    student, teacher = answer(STUDENT, 0), answer(TEACHER, 1)
    first = whole.losses(student, teacher, batch())["crd"]
    second = whole.losses(student, teacher, batch((1, 2, 3, 5)))["crd"]
    assert half.losses(student, teacher, batch())["crd"].item() == first.item()
    rest.load_state_dict(half.state_dict())
    assert rest.losses(student, teacher, batch((1, 2, 3, 5)))["crd"].item() == second.item()


def test_crd_is_refused_where_it_cannot_be():
    with pytest.raises(RecipeError, match="one process"):
        build_objective(CRDObjective(kind="crd"), TermContext(STUDENT, TEACHER, LABELS, devices=2))
    with pytest.raises(RecipeError, match="several classes"):
        build_objective(CRDObjective(kind="crd"), TermContext(STUDENT, TEACHER, LABELS * 0))
    with pytest.raises(RecipeError, match="one stage"):
        build_objective(CRDObjective(kind="crd", features=("stage1", "pooled")), SETTING)


def test_tokens_of_another_number_are_refused_before_a_loss_is_asked() -> None:
    assert projection((17, 32), (17, 48), kind="fitnet")(torch.zeros(2, 17, 32)).shape == (2, 17, 48)
    with pytest.raises(RecipeError, match=r"features of shape \(10, 32\) cannot be compared with \(17, 48\)"):
        projection((10, 32), (17, 48), kind="fitnet")
