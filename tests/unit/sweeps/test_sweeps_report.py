"""The table and the picture of a sweep."""

from __future__ import annotations

import io
import itertools
import math
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from distill.report.sweep_map import map_of
from distill.report.sweep_plots import plot_sweep
from distill.report.sweeps import sweep_table
from distill.results.sweeps import BestTrial, GroupRow, SweepReport, TrialRow
from distill.text import MISSING


def report(kind: str = "search", trials: int = 6) -> SweepReport:
    rows = [
        TrialRow(
            n,
            {"optim.lr": 10.0 ** -(n % 5 + 1), "optim.name": ("adam", "sgd")[n % 2]},
            "finished",
            None,
            0.5 + n / 100,
            2,
            62.0,
            f"runs/x/{n:03d}",
        )
        for n in range(trials)
    ]
    rows += [
        TrialRow(trials, {"optim.lr": 1.0, "optim.name": "sgd"}, "pruned", None, 0.99, 1, 5.0, "runs/x/900"),
        TrialRow(trials + 1, {"optim.lr": 9.0, "optim.name": "sgd"}, "failed", error="the loss is not finite\x1b[31m"),
    ]
    top = rows[trials - 1]
    best = BestTrial(top.params, top.val_top1, None, 1, top.number, top.run, "sweeps/x/best.yaml")
    return SweepReport(
        "x",
        kind,
        "sweeps/x",
        tuple(rows),
        best=best,
        importances={"optim.lr": 0.7, "optim.name": 0.3},
        importance_method="fANOVA",
    )


def shown(value: SweepReport, width: int = 120) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"), color_system=None)  # noqa: SIM115
    console.print(sweep_table(value, width))
    console.file.close()
    return console.export_text()


def test_the_best_comes_first_then_pruned_then_failed() -> None:
    lines = shown(report()).splitlines()
    numbers = [line.split()[0] for line in lines if line[:1].isdigit()]
    assert numbers == ["5", "4", "3", "2", "1", "0", "6", "7"]
    best = next(line for line in lines if line.startswith("5"))
    assert "55.00" in best
    assert "1m02s" in best
    assert "runs/x/005" in best


@pytest.mark.parametrize("width", [40, 80, 120, 240])
def test_numbers_and_runs_survive_any_width(width: int) -> None:
    text = shown(report(), width)
    assert all(piece in text for piece in ("55.00", "runs/x/005", "70.0 %", "pruned"))
    assert max(map(len, text.splitlines())) <= max(width, 60)


def test_what_failed_says_why_and_cannot_colour_the_screen() -> None:
    text = shown(report())
    assert "trial 7 failed: the loss is not finite" in text
    assert "\x1b" not in text


def test_long_sweeps_are_cut_with_the_place_of_the_rest() -> None:
    assert "and 62 more: sweeps/x/result.json" in shown(report(trials=100))


def test_means_are_shown_with_n() -> None:
    group = GroupRow({"optim.lr": 0.1}, 3, 0.9, 0.01, 5.0)
    text = shown(SweepReport("x", "grid", "sweeps/x", (), groups=(group,)))
    assert "90.00 ± 1.00" in text
    assert "sample standard deviation" in text


def test_the_chosen_combination_is_green_and_not_one_that_lost_a_seed() -> None:
    lost, chosen = GroupRow({"optim.lr": 0.2}, 1, 0.95, None, 5.0), GroupRow({"optim.lr": 0.1}, 2, 0.9, 0.01, 5.0)
    best = BestTrial(chosen.params, 0.9, 0.01, 2, 0, "runs/x/000", "sweeps/x/best.yaml")
    console = Console(width=120, record=True, file=io.StringIO(), force_terminal=True)
    console.print(sweep_table(SweepReport("x", "grid", "sweeps/x", (), best=best, groups=(lost, chosen)), 120))
    lines = console.export_text(styles=True).splitlines()
    assert ["\x1b[32m" in next(line for line in lines if top in line) for top in ("95.00", "90.00")] == [False, True]


@pytest.mark.parametrize("kind", ["search", "grid"])
def test_the_picture_is_the_same_bytes_every_time(kind: str, tmp_path: Path) -> None:
    one = plot_sweep(report(kind), tmp_path / "a.svg", log_keys=("optim.lr",))
    two = plot_sweep(report(kind), tmp_path / "b.svg", log_keys=("optim.lr",))
    assert one is not None
    assert two is not None
    assert one.read_bytes() == two.read_bytes()
    assert b"<svg" in one.read_bytes()


def test_without_an_accuracy_there_is_no_picture(tmp_path: Path) -> None:
    failed = TrialRow(0, {"a": 1}, "failed", error="x")
    assert plot_sweep(SweepReport("x", "grid", "s", (failed,)), tmp_path / "a.svg") is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("values", "has_means"), [((True, False), True), ((0.1, 0.2), False)])
def test_means_of_choices_are_in_the_legend(values: tuple[object, ...], has_means: bool, tmp_path: Path) -> None:
    rows = tuple(
        TrialRow(n, {"optim.x": value}, "finished", None, 0.5 + n / 10, 2, 1.0) for n, value in enumerate(values)
    )
    picture = plot_sweep(SweepReport("x", "search", "s", rows), tmp_path / "a.svg")
    assert picture is not None
    assert ("<!-- mean -->" in picture.read_text()) == has_means


def grid(values: dict[str, list[object]], tops: list[float | None]) -> SweepReport:
    """A grid of every combination, the last key fastest, and what each came to; None failed."""
    combinations = [dict(zip(values, each, strict=True)) for each in itertools.product(*values.values())]
    rows = [
        TrialRow(number, params, "failed" if top is None else "finished", val_top1=top)
        for number, (params, top) in enumerate(zip(combinations, tops, strict=True))
    ]
    return SweepReport("x", "grid", "sweeps/x", tuple(rows))


TWO = {"objective.temperature": [4, 1], "objective.kd_weight": [0.9, 0.5, 0.1]}


def test_a_grid_of_two_keys_is_a_map_of_their_means() -> None:
    one = grid(TWO, [0.1, 0.2, 0.3, 0.4, 0.5, None])
    again = replace(one, trials=(*one.trials, replace(one.trials[0], seed=1, val_top1=0.2)))
    found = map_of(again)
    assert found is not None
    assert found.keys == ("objective.temperature", "objective.kd_weight")
    assert found.values == (("1", "4"), ("0.1", "0.5", "0.9"))
    assert found.means == ((None, 0.5, 0.4), (0.3, 0.2, pytest.approx(0.15)))
    assert found.best == 0.5
    lines = shown(again).splitlines()
    place = lines.index("mean val top-1, % (across: objective.kd_weight)")
    assert lines[place + 1].split() == ["objective.temperature", "0.1", "0.5", "0.9"]
    assert [line.split() for line in lines[place + 3 : place + 5]] == [
        ["1", MISSING, "50.00", "40.00"],
        ["4", "30.00", "20.00", "15.00"],
    ]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"a": [1, 2, 3]}, "grid"),
        ({"a": [1, 2], "b": [1, 2], "c": [1, 2]}, "grid"),
        ({"a": list(range(13)), "b": [1, 2]}, "grid"),
        ({"a": [1, 2], "b": [1, 2]}, "search"),
    ],
)
def test_what_is_no_map_of_two_keys_has_none(values: dict[str, list[object]], kind: str) -> None:
    trials = math.prod(map(len, values.values()))
    assert map_of(replace(grid(values, [0.5] * trials), kind=kind)) is None


def test_a_key_that_does_not_vary_is_not_on_the_map(tmp_path: Path) -> None:
    found = map_of(grid({"a": [1, 2], "fixed": ["x"], "b": ["p", "q"]}, [0.1, 0.2, 0.3, 0.4]))
    assert found is not None
    assert found.keys == ("a", "b")


def test_values_that_look_alike_are_not_one_and_are_told_apart() -> None:
    found = map_of(grid({"a": [0.12341, 0.12344], "b": [True, None]}, [0.1, 0.2, 0.3, 0.4]))
    assert found is not None
    assert found.values == (("0.12341", "0.12344"), ("true", "null"))  # all digits, where fewer look the same
    assert found.means == ((0.1, 0.2), (0.3, 0.4))


def test_the_map_is_in_the_picture(tmp_path: Path) -> None:
    path = plot_sweep(grid(TWO, [0.1, 0.2, 0.3, 0.4, 0.5, None]), tmp_path / "a.svg")
    assert path is not None
    drawn = path.read_text()
    assert all(f"<!-- {number} -->" in drawn for number in ("10.0", "20.0", "30.0", "40.0", "50.0"))
    assert "Mean validation top-1" in drawn
