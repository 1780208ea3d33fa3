"""Intervals, verdicts and the front in ``distill compare``, against values worked out by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import numpy as np
import pytest
from typer.testing import CliRunner

from distill.cli import app
from distill.comparison import compare
from distill.comparison.statistics import baseline_row, difference_of, with_statistics
from distill.errors import UsageError
from distill.pipeline import RunResult
from distill.report.comparison import comparison_lines, comparison_table
from distill.results.rows import Comparison, Row, row_labels


def _row(name: str, top1: float, n: int, *, ms: float | None = None, seeds: int = 1, test_set: str | None = "a") -> Row:
    return Row(
        name=name, role="student", run=f"runs/{name}/001", dataset="digits", objective="kd", seeds=seeds,
        test_top1=top1, test_images=n, latency_b1_ms=ms, test_set=test_set,
    )  # fmt: skip


def _tested(*groups: np.ndarray, seeds: tuple[int, ...] = (0,)) -> list[SimpleNamespace]:
    """Runs that answer right where the arrays say so: of two classes, all images are of class 1."""
    return [
        SimpleNamespace(
            recipe=SimpleNamespace(train=SimpleNamespace(seed=seed)),
            assessment=SimpleNamespace(logits=np.eye(2)[right.astype(int)], labels=np.ones(len(right), int)),
        )
        for seed, right in zip(seeds, groups, strict=True)
    ]


def _right(n: int, right: int, *, shift: int = 0) -> np.ndarray:
    return np.roll(np.arange(n) < right, shift)


def _against(rows: list[Row], name: str) -> dict[str, str]:
    return dict.fromkeys([row.run for row in rows], baseline_row(name, rows).run)


def test_one_run_has_wilsons_interval_and_mcnemars_test() -> None:
    ours, theirs = _right(100, 90), _right(100, 90)
    ours[88:98] = True  # right where theirs is wrong: images 90 to 97
    ours[0:2] = False  # and wrong where theirs is right: two images
    rows = [_row("ours", ours.mean(), 100), _row("theirs", 0.9, 100)]
    tested = {rows[0].run: _tested(ours), rows[1].run: _tested(theirs)}
    got, base = with_statistics(rows, tested, baselines=_against(rows, "theirs"), notes=[])
    z = 1.959964
    p, n = 0.96, 100
    centre, half = (
        (p + z**2 / (2 * n)) / (1 + z**2 / n),
        z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n),
    )
    assert (got.test_top1_low, got.test_top1_high) == pytest.approx((centre - half, centre + half), abs=1e-6)
    assert got.baseline_difference == pytest.approx(0.06)
    assert got.baseline_p == pytest.approx((2 * (1 + 10) + 45) / 2**10)  # 8 against 2: mid-p
    assert (got.baseline_method, got.baseline_n, got.baseline_verdict) == ("mcnemar", 100, "cannot tell")
    assert got.baseline_needed > 100
    assert base.baseline == base.run
    assert base.baseline_difference is None


def test_seeds_that_are_all_as_accurate_have_the_images_interval() -> None:
    """Two seeds, 90 of 100 each: Student's t of no spread would have no width."""
    rows = [_row("one", 0.9, 100), _row("two", 0.9, 100, seeds=2)]
    tested = {
        rows[0].run: _tested(_right(100, 90)),
        rows[1].run: _tested(_right(100, 90), _right(100, 90, shift=5), seeds=(0, 1)),
    }
    one, two = with_statistics(rows, tested, baselines={}, notes=[])
    assert two.test_top1_low == one.test_top1_low == pytest.approx(0.8256, abs=1e-4)  # Wilson's, by hand
    assert two.test_top1_high == one.test_top1_high == pytest.approx(0.9448, abs=1e-4)


def test_seeds_are_paired_whatever_their_order() -> None:
    ours = _tested(_right(200, 150), _right(200, 160), _right(200, 170), seeds=(2, 0, 1))
    theirs = _tested(_right(200, 150), _right(200, 164), _right(200, 142), seeds=(0, 1, 2))
    rows = [_row("ours", 0.8, 200, seeds=3), _row("theirs", 0.76, 200, seeds=3)]
    got, _ = with_statistics(
        rows, {rows[0].run: ours, rows[1].run: theirs}, baselines=_against(rows, "theirs"), notes=[]
    )
    differences = np.array([160 - 150, 170 - 164, 150 - 142]) / 200  # of seeds 0, 1, 2
    students_t = 4.302653 * differences.std(ddof=1) / math.sqrt(3)
    assert got.baseline_difference == pytest.approx(differences.mean())
    half = differences.mean() - got.baseline_low
    assert students_t < half < 1.15 * students_t  # few images tell the two apart in several seeds
    assert got.baseline_high == pytest.approx(differences.mean() + half)
    assert (got.baseline_method, got.baseline_n, got.baseline_verdict) == ("paired seeds", 3, "better")
    spread = 4.302653 * np.std([0.75, 0.8, 0.85], ddof=1) / math.sqrt(3)
    assert (got.test_top1_low, got.test_top1_high) == pytest.approx((0.8 - spread, 0.8 + spread))


def test_seeds_that_only_one_has_are_left_out_and_it_is_said() -> None:
    ours = _tested(_right(200, 150), _right(200, 160), _right(200, 10), seeds=(0, 1, 2))
    theirs = _tested(_right(200, 140), _right(200, 152), seeds=(0, 1))
    rows, notes = [_row("ours", 0.5, 200, seeds=3), _row("theirs", 0.73, 200, seeds=2)], []
    got, _ = with_statistics(
        rows, {rows[0].run: ours, rows[1].run: theirs}, baselines=_against(rows, "theirs"), notes=notes
    )
    assert got.baseline_difference == pytest.approx((10 + 8) / 2 / 200)
    assert notes == ["ours against theirs: over the 2 seeds that both have"]


def test_one_run_against_several_says_what_its_interval_leaves_out() -> None:
    ours = _tested(_right(300, 280), _right(300, 284, shift=5), seeds=(0, 1))
    rows = [_row("ours", 0.94, 300, seeds=2), _row("theirs", 0.5, 300)]
    notes: list[str] = []
    got, _ = with_statistics(
        rows,
        {rows[0].run: ours, rows[1].run: _tested(_right(300, 150), seeds=(7,))},
        baselines=_against(rows, "theirs"),
        notes=notes,
    )
    assert notes == ["ours against theirs: theirs is one run, whose spread over seeds is not in the interval"]
    assert (got.baseline_method, got.baseline_verdict) == ("one run", "better")
    assert got.baseline_low < 282 / 300 - 0.5 < got.baseline_high


def test_single_runs_against_several_are_told_of_in_one_line() -> None:
    theirs = _tested(_right(300, 280), _right(300, 284, shift=5), seeds=(0, 1))
    rows = [_row("one", 0.5, 300), _row("two", 0.5, 300), _row("theirs", 0.94, 300, seeds=2)]
    tested = {row.run: _tested(_right(300, 150), seeds=(7,)) for row in rows[:2]} | {rows[2].run: theirs}
    notes: list[str] = []
    with_statistics(rows, tested, baselines=_against(rows, "theirs"), notes=notes)
    assert notes == ["one, two against theirs: each is one run, whose spread over seeds is not in the interval"]
    notes.clear()
    with_statistics(rows[1:], tested, baselines=_against(rows[1:], "theirs"), notes=notes)
    assert notes == ["two against theirs: two is one run, whose spread over seeds is not in the interval"]


def test_other_images_are_not_held_against_each_other() -> None:
    rows = [_row("ours", 0.9, 100, test_set="b"), _row("theirs", 0.9, 100)]
    notes: list[str] = []
    tested = {row.run: _tested(_right(100, 90)) for row in rows}
    got, _ = with_statistics(rows, tested, baselines=_against(rows, "theirs"), notes=notes)
    assert got.baseline_difference is None
    assert notes == ["ours is not held against theirs: it was tested on other images"]


def test_any_two_rows_tell_their_difference_when_asked() -> None:
    ours, theirs = _right(100, 90), _right(100, 90)
    ours[88:98], ours[0:2] = True, False
    rows = [_row("ours", 0.96, 100), _row("theirs", 0.9, 100), _row("other", 0.5, 50, test_set="b")]
    rows.append(_row("bank", 0.9, 100))
    tested = {rows[0].run: _tested(ours), rows[1].run: _tested(theirs), rows[2].run: _tested(_right(50, 25))}
    held, _, _, _ = with_statistics(rows, tested, baselines=_against(rows, "theirs"), notes=[])
    difference = difference_of(tested)
    found = difference(rows[0], rows[1])
    assert found is not None
    assert (found.estimate, found.low, found.high, found.method) == (
        held.baseline_difference,
        held.baseline_low,
        held.baseline_high,
        "mcnemar",
    )
    assert difference(rows[0], rows[2]) is None  # other images
    assert difference(rows[0], rows[3]) is None  # its answers are not here


def test_the_front() -> None:
    """Accuracy and milliseconds: b is beaten by a, d by c; e was tested on other images; f was not timed."""
    points = {"a": (0.9, 1.0), "b": (0.85, 1.0), "c": (0.95, 3.0), "d": (0.94, 3.5), "f": (0.99, None)}
    rows = [_row(name, top1, 100, ms=ms) for name, (top1, ms) in points.items()]
    rows.append(_row("e", 0.1, 100, ms=9.0, test_set="b"))
    marked = with_statistics(rows, {}, baselines={}, notes=[])
    assert {row.name: row.on_front for row in marked} == {
        "a": True, "b": False, "c": True, "d": False, "f": None, "e": True,
    }  # fmt: skip
    shown = _shown(Comparison(rows=tuple(marked), device="cpu", threads=1))
    assert shown.count(" yes ") == 3


def _shown(comparison: Comparison) -> str:
    from rich.console import Console

    console = Console(width=200, color_system=None)
    with console.capture() as captured:
        console.print(comparison_table(comparison, 200))
    return captured.get()


@pytest.mark.parametrize(
    ("baseline", "line"), [("nobody", "is no row of this table"), ("student", "--baseline student means 2 rows")]
)
def test_a_baseline_that_means_no_row_or_two(baseline: str, line: str) -> None:
    rows = [_row("one", 0.9, 100), _row("two", 0.8, 100)]
    with pytest.raises(UsageError, match=line) as caught:
        baseline_row(baseline, rows)
    assert "one" in caught.value.hint
    for named in ("two", "runs/two/001", "two/001"):  # as compare takes runs
        assert baseline_row(named, rows).run == "runs/two/001"
    with pytest.raises(UsageError, match="means 2 rows"):
        baseline_row("001", rows)


def test_through_the_command(train: Callable[..., RunResult], teacher_run: RunResult, tmp_path: Path) -> None:
    run = train()
    result = CliRunner().invoke(
        app,
        ["compare", str(teacher_run.run), str(run.run), "--baseline", "tiny_teacher", "--no-latency", "--json", "-q",
         "--device", "cpu"],
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    row = next(each for each in json.loads(result.stdout)["rows"] if each["name"] == "tiny_student")
    assert row["baseline"] == str(teacher_run.run)
    assert row["baseline_method"] == "mcnemar"
    assert row["baseline_difference"] == pytest.approx(row["delta_top1"])
    assert row["baseline_low"] <= row["baseline_difference"] <= row["baseline_high"]
    assert row["test_top1_low"] < row["test_top1"] < row["test_top1_high"]
    gate = "tiny_student.test_top1 >= tiny_teacher.test_top1 + 1"
    missed = CliRunner().invoke(
        app, ["compare", str(teacher_run.run), str(run.run), "--no-latency", "--require", gate], catch_exceptions=False
    )
    bounds = f"{row['baseline_difference']:+.4f} (95%: {row['baseline_low']:+.4f} to {row['baseline_high']:+.4f})"
    assert (missed.exit_code, f"difference of top-1 {bounds}" in missed.stderr.replace("\n", " ")) == (3, True)
    text = str(compare([teacher_run, run], baseline=teacher_run, latency=False, device="cpu"))
    assert "Δ baseline" in text
    assert "McNemar" in text


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--baseline", "tiny_techer"], "--baseline tiny_techer is no row of this table"),
        (["--require", "tiny_techer.latency_b1_ms < 5"], "no row or role 'tiny_techer'"),
        (["--require", "0.5 < tiny_techer.test_top1"], "no row or role 'tiny_techer'"),
    ],
)
def test_a_misspelt_row_is_told_before_anything_is_timed(
    options: list[str], line: str, teacher_run: RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    def timed(*_: object, **__: object) -> NoReturn:
        raise AssertionError("it was timed")

    monkeypatch.setattr("distill.comparison.timing.measure_latency", timed)
    result = CliRunner().invoke(app, ["compare", str(teacher_run.run), "--device", "cpu", *options])
    assert result.exit_code == 2
    assert line in result.stderr.replace("\n", " ")
    assert "there are" in result.stderr


def test_rows_whose_images_nobody_knows_are_on_no_front() -> None:
    """Two rows without a name for their images: neither may be said to beat the other."""
    rows = [_row("one", 0.9, 100, ms=1.0, test_set=None), _row("two", 0.8, 100, ms=2.0, test_set=None)]
    assert [row.on_front for row in with_statistics(rows, {}, baselines={}, notes=[])] == [None, None]
    assert not rows[0].same_test_images(rows[1])


def test_a_run_and_its_file_of_one_name_are_told_apart() -> None:
    """``distill export RUN`` calls the file as the run is called."""
    rows = [
        _row("net", 0.9, 100, seeds=2),
        replace(_row("net", 0.9, 100), run="exports/net.onnx", runtime="onnxruntime fp32"),
        _row("other", 0.8, 100),
    ]
    assert row_labels(rows) == ["net 001", "net net.onnx", "other"]
    tested = {
        rows[0].run: _tested(_right(100, 90), _right(100, 91), seeds=(0, 1)),
        rows[1].run: _tested(_right(100, 90)),
        rows[2].run: _tested(_right(100, 80)),
    }
    notes: list[str] = []
    with_statistics(rows, tested, baselines=_against(rows, "runs/net/001"), notes=notes)
    assert notes[-1].startswith("net net.onnx, other against net 001: each is one run")


def test_several_methods_are_told_what_remains_among_them() -> None:
    """By hand: mid-p of 10 against 2 is 0.0225, Holm's of three that are so is three times it."""
    theirs = _tested(_right(200, 100))
    alone = np.array(_right(200, 100)).copy()
    alone[:2], alone[100:110] = False, True  # 2 lost, 10 won
    names = ("one", "two", "three")
    rows = [_row(name, 0.54, 200) for name in names]
    rows += [_row("theirs", 0.5, 200), replace(_row("large", 0.6, 200), role="teacher")]
    rows += [replace(_row("file", 0.54, 200), runtime="onnxruntime int8", source_run=rows[0].run)]
    tested = {row.run: _tested(alone) for row in rows} | {rows[3].run: theirs}
    got = with_statistics(rows, tested, baselines=_against(rows, "theirs"), notes=[])
    single = (2 * (1 + 12) + 66) / 2**12
    assert [row.baseline_p for row in got[:3]] == pytest.approx([single] * 3)
    assert [row.baseline_p_holm for row in got] == [pytest.approx(3 * single)] * 3 + [None] * 3
    assert {row.baseline_verdict for row in got[:3]} == {"better"}
    lines = comparison_lines(Comparison(tuple(got), "cpu", 1, {}, (), None))
    assert (
        "each verdict stands alone, at 5%; among 3 methods, by Holm's rule, no difference is shown of "
        f"one (p {3 * single:.2g}), two (p {3 * single:.2g}), three (p {3 * single:.2g})"
    ) in lines
    (only,) = with_statistics(rows[:1] + rows[3:4], tested, baselines=_against(rows, "theirs"), notes=[])[:1]
    assert only.baseline_p_holm == only.baseline_p
    assert not any("Holm" in line for line in comparison_lines(Comparison((only, rows[3]), "cpu", 1, {}, (), None)))
