"""The study of objectives: what its table says of runs, and that its rows are recipes."""

from __future__ import annotations

import pytest
from scipy import stats

from benchmarks import objectives
from distill.objectives import OBJECTIVES
from distill.recipe import load_recipe


def row(name, *top1, cpu=(2.0, 3.0), peak=(500.0, 400.0)):
    return objectives.Row(name, top1, cpu, peak)


def test_differences_are_paired_by_seed_and_their_interval_is_students():
    kd, other = row("kd", 0.5, 0.6, 0.7), row("mse", 0.52, 0.61, 0.74)
    mean, half = other.against(kd)
    low, high = stats.ttest_rel(other.top1, kd.top1).confidence_interval(0.95)
    assert (mean - half, mean + half) == pytest.approx((low, high), abs=1e-5)


def test_a_run_that_diverged_pairs_with_nothing_and_is_told():
    kd, other = row("kd", 0.5, 0.6), row("mse", None, 0.63, cpu=(4.0, 5.0))
    assert other.against(kd) == (pytest.approx(0.03), None)
    assert row("mse", None, None).against(kd) is None
    line = objectives._table([kd, other], kd).splitlines()[-1]
    assert line == "| `mse` | bank | 63.00% (1 seed); 1 of 2 diverged | +3.00 | 2.00 | 1.00 |"


def test_every_objective_has_a_row_that_is_a_recipe():
    kinds = {entry.objective[len("{kind: ") :].split(",")[0].rstrip("}") for entry in objectives.ENTRIES.values()}
    too_wide = "fsp"  # asks for a student as wide as its teacher
    assert kinds == OBJECTIVES.keys() - {"python", "python_labels", too_wide} | {"supervised"}
    study = objectives.STUDIES["cifar10"]
    for entry in objectives.ENTRIES.values():
        taught = ["role=student", "teacher.run=there"] if entry.asked else ["role=baseline"]
        load_recipe(study.student, [*study.both, *study.students, *taught, f"objective={entry.objective}"])
