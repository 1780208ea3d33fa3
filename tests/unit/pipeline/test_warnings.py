"""What a run and a chain say at their end, of numbers by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distill.evaluation.drop import DropVerdict
from distill.evaluation.statistics import Interval
from distill.pipeline.compress import lost_on_test_images
from distill.pipeline.record import fallen
from distill.results.rows import Row


@pytest.mark.parametrize(
    ("top1s", "images", "says"),
    [
        ((0.71, 0.33, 0.44), 48, True),  # 27 points; two standard errors are 19
        ((0.71, 0.62, 0.61), 48, False),  # so few images vary by that
        ((0.71, 0.62, 0.60), 5000, True),
        ((0.60, 0.71, 0.70), 5000, False),
        ((0.71, None, None), 5000, False),
        ((0.71, 0.1), 0, False),
    ],
)
def test_a_run_that_ends_far_below_its_best_says_so(top1s: tuple[float | None, ...], images: int, says: bool) -> None:
    best = max(range(len(top1s)), key=lambda at: top1s[at] or 0.0) + 1
    line = fallen([{"val_top1": top1} for top1 in top1s], best=best, images=images)
    assert (line is not None) == says
    if line is not None:
        assert line.startswith(f"training did not settle: epoch 1 of {len(top1s)}, which is kept, answers 71.00 %")
        assert "a lower optim.lr" in line


@pytest.mark.parametrize(
    ("difference", "verdict", "says"),
    [(-0.1333, "worse", True), (-0.04, "worse", False), (-0.1333, "cannot tell", False), (0.02, "better", False)],
)
def test_a_file_that_loses_more_on_test_images_is_warned_of(difference: float, verdict: str, says: bool) -> None:
    row = Row(name="a", role="student", run="a.onnx", dataset="photos", objective="kd", seeds=1)
    row = replace(row, baseline_difference=difference, baseline_verdict=verdict)
    judged = DropVerdict(Interval(-0.04, -0.2, 0.1), reference=0.5, allowed=0.05, n=48, needed=None)
    told = "a.onnx loses 13.33 points on the test images; 5.00 were allowed, judged by 48 validation images"
    assert lost_on_test_images(row, replace(judged, prove=True)) == (told if says else None)
    assert lost_on_test_images(row, judged) == (f"{told} (--prove asks for more certainty)" if says else None)
