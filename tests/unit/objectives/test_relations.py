"""at, nst, sp, rkd, pkt, cc: float64 NumPy, torchdistill where it is, and what the papers say does not change them."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch

from distill.objectives.at import at_loss
from distill.objectives.cc import cc_loss
from distill.objectives.nst import nst_loss
from distill.objectives.pkt import pkt_loss
from distill.objectives.rkd import rkd_angle_loss, rkd_distance_loss
from distill.objectives.sp import sp_loss

from .reference import assert_equals


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def pool(maps: np.ndarray, side: int) -> np.ndarray:
    k = maps.shape[2] // side
    return maps.reshape(*maps.shape[:2], side, k, side, k).mean(axis=(3, 5))


def numpy_at(student: np.ndarray, teacher: np.ndarray) -> float:
    side = min(student.shape[2], teacher.shape[2])
    pairs = zip(pool(student, side), pool(teacher, side), strict=True)
    return float(np.mean([(unit((s**2).mean(0).ravel()) - unit((t**2).mean(0).ravel())) ** 2 for s, t in pairs]))


def numpy_nst(student: np.ndarray, teacher: np.ndarray) -> float:
    side = min(student.shape[2], teacher.shape[2])
    found = []
    for s, t in zip(pool(student, side), pool(teacher, side), strict=True):
        ours, theirs = ([unit(channel.ravel()) for channel in each] for each in (s, t))

        def kernel(a: list, b: list) -> float:
            return float(np.mean([(x @ y) ** 2 for x in a for y in b]))

        found.append(kernel(theirs, theirs) + kernel(ours, ours) - 2 * kernel(ours, theirs))
    return float(np.mean(found))


def numpy_sp(student: np.ndarray, teacher: np.ndarray) -> float:
    def rows(features: np.ndarray) -> np.ndarray:
        flat = features.reshape(len(features), -1)
        return np.stack([unit(row) for row in flat @ flat.T])

    return float(((rows(student) - rows(teacher)) ** 2).sum() / len(student) ** 2)


def huber(difference: np.ndarray) -> float:
    size = np.abs(difference)
    return float(np.where(size < 1, 0.5 * size**2, size - 0.5).mean())


def numpy_distances(student: np.ndarray, teacher: np.ndarray) -> float:
    def relative(features: np.ndarray) -> np.ndarray:
        flat = features.reshape(len(features), -1)
        found = np.array([[np.linalg.norm(a - b) for b in flat] for a in flat])
        return found / found[~np.eye(len(flat), dtype=bool)].mean()

    return huber(relative(student) - relative(teacher))


def numpy_angles(student: np.ndarray, teacher: np.ndarray) -> float:
    def cosines(features: np.ndarray) -> np.ndarray:
        flat, n = features.reshape(len(features), -1), len(features)
        found = np.zeros((n, n, n))
        for j in range(n):
            for i in range(n):
                for k in range(n):
                    if i != j != k:
                        found[j, i, k] = unit(flat[i] - flat[j]) @ unit(flat[k] - flat[j])
        return found

    return huber(cosines(student) - cosines(teacher))


def numpy_pkt(student: np.ndarray, teacher: np.ndarray) -> float:
    def rows(features: np.ndarray) -> np.ndarray:
        flat = np.stack([unit(each.ravel()) for each in features])
        found = (flat @ flat.T + 1) / 2
        return found / found.sum(axis=1, keepdims=True)

    p, q = rows(teacher), rows(student)
    return float((p * np.log((p + 1e-7) / (q + 1e-7))).mean())


def numpy_cc(student: np.ndarray, teacher: np.ndarray) -> float:
    """The kernel by its first three terms: exp(-gamma |x - y|^2) = exp(-2 gamma) exp(2 gamma x.y) of unit vectors."""

    def correlations(features: np.ndarray) -> np.ndarray:
        flat = [unit(each.ravel()) for each in features]
        products = 0.8 * np.array([[a @ b for b in flat] for a in flat])
        return math.exp(-0.8) * (1 + products + products**2 / 2)

    return float(((correlations(student) - correlations(teacher)) ** 2).mean())


correlations = partial(cc_loss, gamma=0.4, order=2)
correlations.__name__ = "cc_loss"


@pytest.fixture
def maps():
    rng = np.random.default_rng(3)
    return rng.normal(size=(4, 2, 2, 2)), rng.normal(size=(4, 3, 4, 4))


ALL = [
    (at_loss, numpy_at),
    (nst_loss, numpy_nst),
    (sp_loss, numpy_sp),
    (rkd_distance_loss, numpy_distances),
    (rkd_angle_loss, numpy_angles),
    (pkt_loss, numpy_pkt),
    (correlations, numpy_cc),
]


@pytest.mark.parametrize(("loss", "reference"), ALL, ids=lambda each: each.__name__)
def test_values_and_gradients_are_numpys(maps, loss, reference):
    assert_equals(loss, reference, *maps)


@pytest.mark.parametrize("loss", [loss for loss, _ in ALL], ids=lambda each: each.__name__)
def test_is_zero_at_equality_and_not_negative(maps, loss):
    student, teacher = (torch.from_numpy(each).float() for each in maps)
    assert loss(student, student).abs() < 1e-6
    assert loss(student, teacher) > 0


@pytest.mark.parametrize("loss", [loss for loss, _ in ALL], ids=lambda each: each.__name__)
def test_is_blind_to_scale(maps, loss):
    student, teacher = (torch.from_numpy(each).float() for each in maps)
    torch.testing.assert_close(loss(student * 3, teacher * 0.5), loss(student, teacher), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "loss", [sp_loss, rkd_distance_loss, rkd_angle_loss, pkt_loss, correlations], ids=lambda each: each.__name__
)
def test_relations_are_blind_to_rotations(maps, loss):
    student, teacher = (torch.from_numpy(each).float().flatten(1) for each in maps)
    turn, _ = torch.linalg.qr(
        torch.randn(student.shape[1], student.shape[1], generator=torch.Generator().manual_seed(0))
    )
    torch.testing.assert_close(loss(student @ turn, teacher), loss(student, teacher), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("loss", [rkd_distance_loss, rkd_angle_loss], ids=lambda each: each.__name__)
def test_rkd_is_blind_to_where_the_batch_lies(maps, loss):
    student, teacher = (torch.from_numpy(each).float().flatten(1) for each in maps)
    torch.testing.assert_close(loss(student + 2, teacher), loss(student, teacher), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("loss", [loss for loss, _ in ALL], ids=lambda each: each.__name__)
def test_equal_or_empty_features_have_finite_gradients(maps, loss):
    for student in (torch.zeros(4, 2, 2, 2), torch.ones(4, 2, 2, 2)):
        student.requires_grad_()
        loss(student, torch.from_numpy(maps[1]).float()).backward()
        assert student.grad.isfinite().all()


def test_ccs_series_becomes_the_gaussian_kernel(maps):
    def exact(features: np.ndarray) -> np.ndarray:
        flat = [unit(each.ravel()) for each in features]
        return np.array([[np.exp(-0.4 * ((a - b) ** 2).sum()) for b in flat] for a in flat])

    found = cc_loss(*(torch.from_numpy(each).float() for each in maps), gamma=0.4, order=12)
    expected = ((exact(maps[0]) - exact(maps[1])) ** 2).mean()
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_equal_torchdistill(maps):
    """All but sp: torchdistill 1.1.5 brings its rows to norm 1 by absolute values, the paper by squares."""
    theirs = pytest.importorskip("torchdistill.losses.mid_level")
    student, teacher = (torch.from_numpy(each).float() for each in maps)
    told = {"s": {"output": student}}, {"t": {"output": teacher}}
    flat = {"s": {"output": student.flatten(1)}}, {"t": {"output": teacher.flatten(1)}}
    close = {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(pkt_loss(student, teacher), theirs.PKTLoss("s", "output", "t", "output")(*flat), **close)
    rkd = theirs.RKDLoss("s", "t", dist_factor=25.0, angle_factor=50.0, reduction="mean")(*told)
    ours = 25 * rkd_distance_loss(student, teacher) + 50 * rkd_angle_loss(student, teacher)
    torch.testing.assert_close(ours, rkd, **close)
    same = torch.nn.functional.adaptive_avg_pool2d(teacher, 2)
    pair = {"p": {"student": {"io": "output", "path": "s"}, "teacher": {"io": "output", "path": "t"}}}
    at = theirs.ATLoss(pair)({"s": {"output": student}}, {"t": {"output": same}})
    torch.testing.assert_close(at_loss(student, teacher), at, **close)
    unit_rows = [
        {name: {"output": torch.nn.functional.normalize(each.flatten(1))}}
        for name, each in (("s", student), ("t", teacher))
    ]
    kernel = {"type": "gaussian", "gamma": 0.4, "max_p": 2}
    norm = theirs.CCKDLoss("s", "t", kernel, reduction="sum")(*unit_rows)  # the paper has its square, over B * B
    torch.testing.assert_close(correlations(student, teacher), norm**2 / 16, **close)


def test_what_all_images_have_in_common_costs_rkd_no_digits():
    """Features a thousand times as far from zero as from one another, as float32 has them."""
    generator = np.random.default_rng(0)
    spread = [generator.normal(size=(16, 32)) + 1000 * generator.normal(size=32) for _ in range(2)]
    rounded = [each.astype(np.float32) for each in spread]
    student, teacher = map(torch.from_numpy, rounded)
    exact = numpy_distances(*(each.astype(np.float64) for each in rounded))
    assert float(rkd_distance_loss(student, teacher)) == pytest.approx(exact, rel=1e-3)
