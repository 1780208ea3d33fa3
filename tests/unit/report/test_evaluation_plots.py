"""Pictures of evaluations: what is in them, the same bytes every time, names that mean no harm."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from distill.evaluation.confidence import fit_temperature, reliability, risk_coverage
from distill.report.evaluation_plots import plot_corruptions, plot_reliability, plot_risk_coverage
from distill.report.plots import plot_classes
from distill.results.corruptions import CORRUPTIONS, SEVERITIES, CorruptedTop1, CorruptionResult
from distill.results.metrics import PerClass

GENERATOR = np.random.default_rng(0)
LABELS = GENERATOR.integers(0, 5, 400)
LOGITS = 3 * (GENERATOR.normal(size=(400, 5)) + 1.5 * np.eye(5)[LABELS])
CELLS = tuple(CorruptedTop1(c, s, 0.9 - s / 10, 0.85 - s / 10, 0.95 - s / 10) for c in CORRUPTIONS for s in SEVERITIES)
RESULT = CorruptionResult(200, 0.93, 0.6, 0.55, 0.65, CELLS, "key")


def _text(path: Path) -> str:
    """The words of a picture: matplotlib keeps each beside its outlines, as a comment."""
    ElementTree.parse(path)
    return path.read_text()


def test_reliability(tmp_path: Path) -> None:
    found, value = reliability(LOGITS, LABELS), fit_temperature(LOGITS, LABELS).value
    after = reliability(LOGITS, LABELS, temperature=value)
    alone = _text(plot_reliability(found, tmp_path / "a.svg"))
    assert f"<!-- ECE {found.ece:.2%} -->" in alone
    assert "temperature" not in alone
    both = _text(plot_reliability(found, tmp_path / "b.svg", calibrated=after, temperature=value))
    assert f"<!-- temperature {value:.3g}, ECE {after.ece:.2%} -->" in both
    again = plot_reliability(found, tmp_path / "c.svg", calibrated=after, temperature=value)
    assert again.read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize("labels", [np.zeros(3, dtype=int), np.ones(3, dtype=int)])
def test_images_that_are_all_right_or_all_wrong(tmp_path: Path, labels: np.ndarray) -> None:
    logits = np.tile([60.0, 0.0], (3, 1))
    _text(plot_reliability(reliability(logits, labels), tmp_path / "a.svg"))
    text = _text(plot_risk_coverage(risk_coverage(logits, labels), tmp_path / "b.svg"))
    assert "answered with" not in text  # all of them, or none


def test_risk_against_coverage(tmp_path: Path) -> None:
    found = risk_coverage(LOGITS, LABELS)
    text = _text(plot_risk_coverage(found, tmp_path / "a.svg"))
    assert f"AURC {found.aurc:.4f}" in text
    assert f"{found.coverage_at_risk_5:.0%} answered with at most 5% errors" in text


@pytest.mark.parametrize("models", [1, 3, 9])
def test_corruptions(tmp_path: Path, models: int) -> None:
    results = [(f"model {number}", replace(RESULT, clean_top1=0.9 + number / 100)) for number in range(models)]
    text = _text(plot_corruptions([*results, ("not measured", None)], tmp_path / "a.svg"))
    legend = [f"{name}: clean {result.clean_top1:.1%}" for name, result in results]
    for words in ("Gaussian noise", "JPEG", "200 images, test", *legend):
        assert words in text
    assert "not measured" not in text
    assert plot_corruptions(results, tmp_path / "b.svg").read_bytes() == (tmp_path / "a.svg").read_bytes()


def test_a_very_long_name_of_a_class_leaves_room_for_the_picture(tmp_path: Path) -> None:
    classes = [PerClass(name, 0.5, 0.4, 0.3, 0.4, 10) for name in ("a cat " * 20, "dog")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib's, that nothing is left to draw on
        text = _text(plot_classes(classes, tmp_path / "a.svg"))
    assert "<!-- dog -->" in text
    assert max(len(line) for line in text.splitlines() if "a cat" in line) < 60


def test_names_mean_no_harm(tmp_path: Path) -> None:
    path = plot_corruptions([("</svg><script>$x$--><a>\x1b[31m", RESULT)], tmp_path / "a.svg")
    assert not [each for each in ElementTree.parse(path).iter() if each.tag.endswith(("script", "}a"))]
    assert b"\x1b" not in path.read_bytes()
