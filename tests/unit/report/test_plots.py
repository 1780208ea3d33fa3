"""Pictures: drawn from whatever there is, the same bytes every time."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image
from sklearn.isotonic import isotonic_regression

from distill.errors import DistillError, UsageError
from distill.report import plots
from distill.report.label_placement import Box, apart, beside
from distill.report.pictures import disagreements_first, plot_predictions
from distill.report.plots import plot_comparison, plot_confusion, plot_run
from distill.results.rows import Comparison, Guess, Prediction, Row

METRICS = [
    {
        "epoch": e,
        "lr": 0.1 / e,
        "train_loss": 1 / e,
        "train_ce": 0.5 / e,
        "train_kd": 2 / e,
        "train_top1": 0.5,
        "val_loss": 1.0,
        "val_top1": 0.3 + e / 100,
    }
    for e in range(1, 6)
]


def _texts(path: Path) -> str:
    """The words of a picture: matplotlib keeps each beside its outlines, as a comment."""
    ElementTree.parse(path)
    return path.read_text()


@pytest.mark.parametrize("scale", [1.0, 3e-4, 1e-7, 2e7])
def test_curves_have_the_margins_of_constrained_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scale: float
) -> None:
    """Whatever stands beside their axes: percent, one decimal, five, a power of ten."""
    scaled = [{k: v * scale if k.endswith(("loss", "lr")) else v for k, v in row.items()} for row in METRICS]
    found: list[tuple[float, ...]] = []

    def measured(figure: Figure, path: Path) -> Path:
        figure.savefig(path)
        found.append(tuple(figure.axes[0].get_position().extents))
        return path

    monkeypatch.setattr(plots, "save", measured)
    plot_run(scaled, tmp_path, name="a/001")
    monkeypatch.setattr(plots, "fit", lambda figure, _axes: figure.set_layout_engine("constrained"))
    plot_run(scaled, tmp_path, name="a/001")
    assert len(found) == 6
    np.testing.assert_allclose(found[:3], found[3:], atol=3 / 640)


def test_curves(tmp_path: Path) -> None:
    files = plot_run(METRICS, tmp_path)
    assert [file.name for file in files] == ["loss.svg", "top1.svg", "lr.svg"]
    loss, top1, lr = (_texts(file) for file in files)
    assert "training: kd" in loss
    assert "best: 35.00% at epoch 5" in top1
    assert "learning rate" in lr


def test_curves_are_the_same_bytes_every_time(tmp_path: Path) -> None:
    one, two = (plot_run(METRICS, tmp_path / name) for name in "ab")
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in two]
    assert b"<dc:date>" not in one[0].read_bytes()


def test_one_epoch_without_validation_and_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    files = plot_run([{"epoch": 1, "lr": 0.1, "train_loss": math.nan, "train_top1": 0.1}], tmp_path)
    assert [file.name for file in files] == ["top1.svg", "lr.svg"]


def test_no_epoch_no_picture(tmp_path: Path) -> None:
    assert plot_run([], tmp_path) == []


@pytest.mark.parametrize("classes", [2, 10, 100, 130])
def test_confusion(tmp_path: Path, classes: int) -> None:
    labels = [f"$class_{number}" for number in range(classes)]
    file = plot_confusion((np.eye(classes, dtype=int) * 900).tolist(), labels, tmp_path / "c.svg")
    assert ("$class_1" in _texts(file)) == (classes <= 120)


def test_a_class_without_images_and_one_never_confused(tmp_path: Path) -> None:
    texts = _texts(plot_confusion([[0, 0], [0, 5]], ["never", "always"], tmp_path / "c.svg"))
    assert {"never", "always", "5"} <= set(texts.split())


def test_comparison(tmp_path: Path) -> None:
    rows = (
        Row("big", "teacher", "r", "d", "supervised", 1, 0.9, params=100, latency_b1_ms=3.0),
        Row(
            "small",
            "student",
            "r",
            "d",
            "kd",
            3,
            0.8,
            0.01,
            params=10,
            latency_b1_ms=1.0,
            test_top1_low=0.78,
            test_top1_high=0.82,
        ),
        Row("unmeasured", "student", "r", "d", "kd", 1, None),
    )
    text = _texts(plot_comparison(Comparison(rows, "cpu", 1), tmp_path / "c.svg"))
    assert "Accuracy and speed" in text
    assert "small" in text
    assert "test top-1, 95% interval" in text
    assert "exported file" not in text
    shipped = (
        *rows,
        Row("small_int8", "student", "small_int8.onnx", "d", "kd", 1, 0.79, params=10, runtime="onnxruntime int8"),
    )
    assert "exported file" in _texts(plot_comparison(Comparison(shipped, "cpu", 1), tmp_path / "e.svg"))
    without = _texts(
        plot_comparison(
            Comparison((Row("a", "student", "r", "d", "kd", 1, 0.8, params=10),), "cpu", 1), tmp_path / "d.svg"
        )
    )
    assert "Accuracy and speed" not in without
    alone = Row("a", "student", "r", "d", "kd", 1, 0.0, params=617, test_top1_low=0.0, test_top1_high=0.3)
    plot_comparison(Comparison((alone,), "cpu", 1), tmp_path / "alone.svg")  # without a warning
    assert "interval" not in without


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.floats(0.01, 0.2))
def test_names_stand_apart_and_as_near_as_that_allows(heights: list[float], gap: float) -> None:
    """Against scikit-learn's isotonic regression of what is left when the gaps are taken out."""
    order = np.argsort(heights, kind="stable")
    gaps = gap * np.arange(len(heights))
    expected = isotonic_regression(np.array(heights)[order] - gaps) + gaps
    assert np.array(apart(heights, gap))[order] == pytest.approx(expected, abs=1e-9)


@given(st.lists(st.tuples(st.floats(20, 280), st.floats(20, 180)), min_size=1, max_size=5, unique=True))
def test_names_lie_over_no_mark_and_no_other_name(points: list[tuple[float, float]]) -> None:
    """Of five points there is always room, unless marks themselves lie over one another."""
    marks = [Box(x - 5, x + 5, y - 5, y + 5) for x, y in points]
    assume(not any(a.covers(b) for a, b in itertools.combinations(marks, 2)))
    area = Box(0, 300, 0, 200)
    widths = [40.0 + 10 * at for at in range(len(points))]
    places = beside(points, widths, height=12, gap=8, area=area, marks=marks)
    names = [
        Box(*sorted((x + 8 * place.side, x + (8 + width) * place.side)), place.y - 6, place.y + 6)
        for (x, _), width, place in zip(points, widths, places, strict=True)
    ]
    assert not any(name.covers(mark) for name in names for mark in marks)
    assert not any(a.covers(b) for a, b in itertools.combinations(names, 2))
    assert all(name.outside(area) < 30 for name in names)


def test_a_name_alone_stands_beside_its_point_and_inwards() -> None:
    area = Box(0, 100, 0, 100)
    for x, side in ((20.0, 1), (80.0, -1)):
        marks = [Box(x - 2, x + 2, 48, 52)]
        (place,) = beside([(x, 50.0)], [30.0], height=10, gap=5, area=area, marks=marks)
        assert (place.side, place.y) == (side, 50.0)


@pytest.mark.parametrize("name", ["table.txt", "table"])
def test_a_kind_that_cannot_be_drawn(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"\.svg, \.png or \.pdf"):
        plot_confusion([[1]], ["a"], tmp_path / name)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DistillError, match="cannot write"):
        plot_confusion([[1]], ["a"], tmp_path / "file" / "c.png")


def _prediction(tmp_path: Path, number: int, label: str | None, teacher: str | None) -> Prediction:
    path = tmp_path / f"{number}.png"
    Image.new("L" if number % 2 else "RGBA", (8 + number, 8)).save(path)
    return Prediction(str(path), (Guess("cat", 0.9),), label, Guess(teacher, 0.5) if teacher else None)


def test_grid(tmp_path: Path) -> None:
    shown = [_prediction(tmp_path, n, "dog" if n % 3 else "cat", "cat" if n % 2 else "dog") for n in range(10)]
    with Image.open(plot_predictions(shown, tmp_path / "grid.png")) as grid:
        assert grid.width > 500
    plot_predictions([_prediction(tmp_path, 1, None, None)], tmp_path / "one.png")


def test_disagreements_come_first_each_in_their_order(tmp_path: Path) -> None:
    shown = [_prediction(tmp_path, n, None, teacher) for n, teacher in enumerate(["cat", "dog", None, "dog"])]
    assert [Path(each.file).stem for each in disagreements_first(shown)] == ["1", "3", "0", "2"]


def test_curves_bear_the_runs_name(tmp_path: Path) -> None:
    for file in plot_run(METRICS, tmp_path, name="r18_small/003"):
        assert "r18_small/003" in _texts(file)


def test_one_epoch_has_one_whole_number_on_its_axis(tmp_path: Path) -> None:
    files = plot_run(METRICS[:1], tmp_path)
    for file in files:
        ticks = re.findall(r'id="xtick_\d+".*?<!-- (.*?) -->', _texts(file), re.DOTALL)
        assert ticks == ["1"], file


@pytest.mark.parametrize(("classes", "named"), [(10, True), (60, True), (300, False)])
def test_sixty_classes_have_names_too(tmp_path: Path, classes: int, named: bool) -> None:
    labels = [f"kind-{number}" for number in range(classes)]
    path = plot_confusion(np.eye(classes, dtype=int).tolist(), labels, tmp_path / "confusion.svg")
    assert ("kind-7" in _texts(path)) == named
