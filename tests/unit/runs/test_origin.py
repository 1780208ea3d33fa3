"""What a run began with is followed to its first, through missing and damaged folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distill.runs import RunFolder, RunInfo
from distill.runs.origin import ancestors, behind, cut_from, parent_of, teachers_of


def _run(path: Path, **links: object) -> RunFolder:
    path.mkdir()
    (path / "run.json").write_text(json.dumps({"status": "finished", "name": path.name, "role": "student"} | links))
    (path / "recipe.yaml").write_text("")
    return RunFolder(path)


@pytest.mark.parametrize(
    ("links", "cut", "parent"),
    [
        ({}, None, None),
        ({"init_from": None}, None, None),
        ({"init_from": "runs/a/001"}, None, "runs/a/001"),
        ({"pruned_from": "runs/a/001", "init_from": "runs/a/001"}, "runs/a/001", "runs/a/001"),
        ({"pruned_from": "runs/a/002", "init_from": "runs/a/001"}, "runs/a/002", "runs/a/002"),
        ({"pruned_from": 3, "init_from": ["runs/a/001"]}, None, None),  # another program's keys of these names
    ],
)
def test_of_a_cut_run_and_of_one_that_was_started_from_another(
    links: dict[str, object], cut: str | None, parent: str | None
) -> None:
    info = RunInfo(extra=dict(links))
    assert cut_from(info) == cut
    assert parent_of(info) == parent


def test_a_network_that_was_cut_many_times_is_followed_to_its_first(tmp_path: Path) -> None:
    runs = [_run(tmp_path / "000")]
    for number in range(1, 40):
        runs.append(_run(tmp_path / f"{number:03d}", pruned_from=str(runs[-1].path)))
    found, lost = ancestors(runs[-1], tmp_path)
    assert [run.path for run in found] == [run.path for run in runs[:-1]]
    assert lost is None


def test_links_that_lead_in_a_circle_end_where_they_come_round(tmp_path: Path) -> None:
    first = _run(tmp_path / "a", init_from=str(tmp_path / "b"))
    _run(tmp_path / "b", pruned_from=str(tmp_path / "a"))
    found, lost = ancestors(first, tmp_path)
    assert [run.path.name for run in found] == ["b"]
    assert lost == str(tmp_path / "a")


@pytest.mark.parametrize("damage", ["gone", "no status", "unfinished"])
def test_one_that_is_not_here_as_it_was_is_named(tmp_path: Path, damage: str) -> None:
    before = _run(tmp_path / "a")
    after = _run(tmp_path / "b", init_from=str(before.path))
    if damage == "gone":
        before.path.rename(tmp_path / "elsewhere")
    else:
        text = "{}" if damage == "no status" else '{"status": "failed"}'
        (before.path / "run.json").write_text(text)
    assert ancestors(after, tmp_path) == ([], str(before.path))


@pytest.mark.parametrize(
    ("teacher", "named"),
    [
        (None, ()),
        ({"run": "runs/t/001", "name": "t"}, ("runs/t/001",)),
        ({"run": None, "banks": [{"path": "runs/a/001/banks/x"}, {"path": "runs/b/002/banks/y"}]},
         ("runs/a/001", "runs/b/002")),
        ({"run": ["x"], "banks": [{"path": 3}, 5]}, ()),  # damaged
        ({"banks": "none"}, ()),
    ],
)  # fmt: skip
def test_teachers_by_their_runs(teacher: dict[str, object] | None, named: tuple[str, ...]) -> None:
    assert teachers_of(RunInfo(teacher=teacher)) == named


def test_all_that_is_behind_a_mean_is_found_once_and_circles_end(tmp_path: Path) -> None:
    first, taught = _run(tmp_path / "first"), _run(tmp_path / "teacher")
    one = _run(tmp_path / "one", init_from=str(first.path))
    two = _run(tmp_path / "two", init_from=str(first.path), teacher={"run": str(taught.path)})
    mean = _run(tmp_path / "mean", soup_of=[str(one.path), str(two.path), "nowhere", 3, str(tmp_path / "mean")])
    assert [run.path.name for run in behind(mean, tmp_path)] == ["one", "two", "first"]
    assert [run.path.name for run in behind(mean, tmp_path, taught=True)] == ["one", "two", "first", "teacher"]
