"""The queue of measurements: what is left of it, on which CPU, and the page that it makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from benchmarks.measure import __main__ as queue
from benchmarks.measure import document, picture, work
from benchmarks.measure.left import seconds_left
from benchmarks.measure.plan import Gain, Item, Stage, arms, items
from benchmarks.measure.work import FailedError, Place, find_run, measure, recipe_digest
from distill.recipe import bundled_recipes
from distill.runs import create_run

CPU = {"name": "a CPU", "capability": "AVX2", "bf16": False}
OTHER = CPU | {"bf16": True}


def _record(item: Item, top1: float = 0.9, **more: Any) -> dict[str, Any]:
    return {
        "recipe": item.recipe, "seed": item.seed, "dataset": "cifar10", "test_top1": top1, "params": 1000, "gmacs": 0.5,
        "input_size": 32, "train_images": 50_000, "epochs": 2, "seconds": 100.0, "cpu_s": 120.0, "precision": "fp32",
        "threads": 1, "git": {"commit": "abcdef0123456789", "dirty": False}, "cpu": CPU,
    } | more  # fmt: skip


def _done(place: Place, item: Item) -> dict[str, Any]:
    return _record(item, recipe_digest=recipe_digest(place.recipe(item)))


def _write(folder: Path, *records: dict[str, Any]) -> None:
    folder.mkdir(parents=True)
    (folder / "cifar.json").write_text(json.dumps({"benchmark": "cifar", "results": records}))


def _place(folder: Path) -> Place:
    return Place(folder, 1, {})


def test_every_run_of_the_queue_is_of_a_bundled_recipe_and_there_once() -> None:
    made = list(items())
    assert len(made) == len(set(made))
    assert {item.recipe for item in made} <= set(bundled_recipes())


def test_all_arms_of_a_seed_come_before_the_next_seed() -> None:
    made = items((Stage(("a",)), Stage(("b", "c"), seeds=2)))
    assert list(map(str, made)) == ["a-0", "b-0", "c-0", "b-1", "c-1"]


def test_further_seeds_of_a_recipe_have_arms_of_their_own() -> None:
    stages = (Stage(("a", "b"), seeds=2), Stage(("a", "c"), seeds=1, first=2))
    assert list(map(str, items(stages))) == ["a-0", "b-0", "a-1", "b-1", "a-2", "c-2"]
    assert [list(map(str, arms(Item("a", seed), stages))) for seed in (1, 2)] == [["b-1"], ["c-2"]]


def test_what_is_done_is_skipped_but_a_missing_teacher_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lenet, teacher, student = Item("lenet_cifar10", 0), Item("resnet152_cifar10", 0), Item("r18_small", 0)
    place, chosen = _place(tmp_path), [lenet, teacher, student]
    done = {item: _done(place, item) for item in (lenet, teacher)}
    assert queue.pending(place, done, chosen) == [teacher, student]  # its weights are nowhere
    monkeypatch.setattr(queue, "_is_here", lambda place, item: True)
    assert queue.pending(place, done, chosen) == [student]
    assert queue.pending(place, done | {student: _done(place, student)}, chosen) == []


def test_several_teachers_are_made_first_and_are_those_of_their_seeds(tmp_path: Path) -> None:
    place, student = _place(tmp_path), Item("fast_cifar10_kd", 0)
    members = [Item("fast_cifar10", seed) for seed in (1, 2)]  # the first one comes trained
    chosen = [Item("fast_cifar10", 0), student, *members]
    done = {item: _done(place, item) for item in (chosen[0], *members)}
    assert queue.pending(place, done, chosen) == [*members, student]  # their results are known, their weights nowhere
    assert queue.obstacle(place, student, {}, CPU) == "its teachers are made first: fast_cifar10-1, fast_cifar10-2"
    made = []
    for seed in (2, 1):
        run = create_run(tmp_path, "fast_cifar10")
        run.write_info(status="finished", seeds={"train": seed})
        run.write_recipe(place.recipe(Item("fast_cifar10", seed)))
        made.append(str(run.path))
    assert queue.pending(place, done, chosen) == [student]
    assert queue.obstacle(place, student, {}, CPU) is None
    trained = str(tmp_path / "trained" / "fast_cifar10" / "001")
    assert [bank.run for bank in place.recipe(student).teacher.banks] == [trained, *reversed(made)]  # type: ignore[union-attr]
    assert place.told(student) == ["train.seed=0", "teacher.banks=fast_cifar10-0, fast_cifar10-1, fast_cifar10-2"]


def test_a_run_is_found_by_its_seed_and_the_newest_counts(tmp_path: Path) -> None:
    place, made = _place(tmp_path), []
    for seed in (0, 1, 0):
        run = create_run(tmp_path, "lenet_cifar10")
        run.write_info(status="interrupted", seeds={"train": seed})
        run.write_recipe(place.recipe(Item("lenet_cifar10", seed)))
        made.append(run.path)
    assert [find_run(place, Item("lenet_cifar10", seed)).path for seed in (0, 1)] == [made[2], made[1]]  # type: ignore[union-attr]
    assert find_run(place, Item("lenet_cifar10", 2)) is None


def test_bf16_is_not_gone_on_with_where_it_is_emulated(tmp_path: Path) -> None:
    item, place = Item("lenet_cifar10", 0), Place(tmp_path, 1, {"lenet_cifar10": ("train.precision=bf16",)})
    assert queue.obstacle(place, item, {}, CPU) is None  # not begun: it resolves to what this CPU has
    run = create_run(tmp_path, item.recipe)
    run.write_info(status="interrupted", seeds={"train": 0})
    run.write_recipe(place.recipe(item))
    assert "emulates" in (queue.obstacle(place, item, {}, CPU) or "")
    assert queue.obstacle(place, item, {}, OTHER) is None


def test_arms_of_a_seed_are_on_one_kind_of_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = Item("lenet_cifar10", 0), Item("cnn_cifar10", 0)
    monkeypatch.setattr(queue, "arms", lambda item: [b if item == a else a])
    assert "another kind of CPU" in (queue.obstacle(_place(tmp_path), a, {b: _record(b, cpu=OTHER)}, CPU) or "")
    assert queue.obstacle(_place(tmp_path), a, {b: _record(b)}, CPU) is None


def test_students_of_a_network_that_comes_trained_all_have_that_one(tmp_path: Path) -> None:
    create_run(tmp_path, "fast_cifar10")  # a run of its recipe, by the queue
    found = queue._trained_teachers(tmp_path, {"fast_small_cifar10_kd", "fast_small_cifar10", "r18_small"})
    folder = tmp_path / "trained" / "fast_cifar10" / "001"
    assert found == {"fast_small_cifar10_kd": f"teacher.run={folder}"}
    assert (folder / "NOTICE.md").is_file()
    assert queue._trained_teachers(tmp_path, {"fast_small_cifar10_kd"}) == found
    assert [path.name for path in (tmp_path / "trained" / "fast_cifar10").iterdir()] == ["001"]


def test_a_failed_run_does_not_end_the_queue_and_a_stopped_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = [Item("lenet_cifar10", 0), Item("cnn_cifar10", 0), Item("r222_adam", 0)]
    codes = {"lenet_cifar10": 1, "r222_adam": 143}

    def fake(place: Place, item: Item, kind: dict[str, Any]) -> dict[str, Any]:
        if item.recipe in codes:
            raise FailedError(f"{item}: no", codes[item.recipe])
        return _done(place, item)

    monkeypatch.setattr(queue, "measure", fake)
    monkeypatch.setattr(queue, "ROOT", tmp_path)
    code = queue.run_queue(_place(tmp_path / "runs"), {}, tmp_path / "out", chosen, CPU)
    assert code == 143
    assert "cnn_cifar10-0: test top-1 90.00%; 2 run(s) left" in capsys.readouterr().err
    assert document.read_results(tmp_path / "out" / "cifar.json").keys() == {chosen[1]}


def test_the_ledger_adds_up_all_processes_of_a_run(tmp_path: Path) -> None:
    place, item = _place(tmp_path), Item("lenet_cifar10", 0)
    with pytest.raises(FailedError, match="distill student ended with 4") as caught:  # no data here: exit code 4
        measure(Place(tmp_path, 1, {item.recipe: (f"data.root={tmp_path}",)}), item, CPU)
    assert caught.value.code == 4
    ledger = place.runs / "measured" / "lenet_cifar10-0.jsonl"
    began, ended = map(json.loads, ledger.read_text().splitlines())
    assert (began, ended["verb"]) == ({"verb": "student", "began": True}, "student")
    assert work._cpu_seconds(place, item) == ended["cpu_s"] > 0
    ledger.write_text(ledger.read_text() + json.dumps(began) + "\n")
    assert work._cpu_seconds(place, item) is None, "of a process that was killed with its queue nothing is known"
    assert "cifar" in (place.runs / "measured" / "lenet_cifar10-0.log").read_text()


def test_time_left_from_the_own_runs_or_by_the_work() -> None:
    a, b = Item("a", 0), Item("b", 0)
    results = {Item("a", seed): _record(Item("a", seed), seconds=s) for seed, s in enumerate((90.0, 100.0, 200.0))}
    assert seconds_left([(Item("a", 3), 1.0)], results) == (100.0, [])
    # b has half of a's multiply-accumulates: 0.5 x 50,000 x 2 took 100 s
    assert seconds_left([(b, 25_000.0)], results) == (pytest.approx(50.0), [])
    assert seconds_left([(a, 1.0)], {}) == (0.0, [a])


def test_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "GAINS", (Gain("b", "a"),))
    tops = {"a": (0.90, 0.91, 0.92), "b": (0.91, 0.93, 0.93)}
    results = {Item(n, s): _record(Item(n, s), top1) for n, values in tops.items() for s, top1 in enumerate(values)}
    page = document.render(results).splitlines()
    # by hand: standard deviation 1, half width t(2) 4.3027 / sqrt(3) = 2.484
    row = "| `a` | cifar10 | 3 | 91.00 ± 1.00 (88.52 to 93.48) | 1,000 | 0.500 at 32 | 2, fp32 | 2, 1, A |"
    assert row in page
    # differences 1, 2, 1: mean 1.333, deviation 0.5774, half width 1.434
    assert "- `b` over `a`: +1.33 points (95% interval -0.10 to +2.77), n = 3; the interval holds zero" in page
    assert page.index(row) > next(at for at, line in enumerate(page) if line.startswith("| `b`"))
    assert page[-1] == "Hardware: A: a CPU (AVX2, bf16 emulated). Commits: abcdef0123."
    elsewhere = {Item("b", seed): _record(Item("b", seed), cpu=OTHER) for seed in (3, 4)}
    page = document.render(results | elsewhere).splitlines()
    assert page[-1].startswith("Hardware: A: a CPU (AVX2, bf16 emulated); B: a CPU (AVX2, bf16 native). ")
    assert [line.rpartition(", ")[2] for line in page if line.startswith(("| `a`", "| `b`"))] == ["AB |", "A |"]


def test_recipes_and_single_runs_are_chosen_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(queue, "ROOT", tmp_path)  # nothing is done
    where = ["--runs", str(tmp_path), "--out", str(tmp_path), "--list"]
    queue.main([*where, "--only", "fast_cifar10_kd-3,fast_cifar100_kd"])
    left = capsys.readouterr().out.split()
    assert "fast_cifar10_kd-3" in left
    assert not {"fast_cifar10_kd-0", "lenet_cifar10-0"} & {*left}
    assert [each for each in left if each.startswith("fast_cifar100_kd")] == [f"fast_cifar100_kd-{s}" for s in range(3)]
    with pytest.raises(SystemExit):
        queue.main([*where, "--only", "fast_cifar10_kd-9,nobody"])
    assert "the plan has no fast_cifar10_kd-9, nobody" in capsys.readouterr().err


def test_a_run_that_was_published_is_made_anew_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place, item, other = _place(tmp_path), Item("lenet_cifar10", 0), Item("cnn_cifar10", 0)
    _write(tmp_path / "docs" / "results", _done(place, item), _done(place, other))
    monkeypatch.setattr(queue, "ROOT", tmp_path)
    where = ["--runs", str(tmp_path), "--out", str(tmp_path / "new"), "--list", "--only", "lenet_cifar10,cnn_cifar10-0"]
    queue.main(where)
    assert not capsys.readouterr().out.strip()
    queue.main([*where, "--anew"])
    assert capsys.readouterr().out.split() == ["lenet_cifar10-0", "cnn_cifar10-0"]
    _write(tmp_path / "new", _done(place, item))  # made since
    queue.main([*where, "--anew"])
    assert capsys.readouterr().out.split() == ["cnn_cifar10-0"]


def test_seeds_that_were_asked_for_after_a_look_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "GAINS", (Gain("b", "a", looked_after=2),))
    tops = {"a": (0.90, 0.91, 0.92), "b": (0.91, 0.93, 0.93)}
    results = {Item(n, s): _record(Item(n, s), top1) for n, values in tops.items() for s, top1 in enumerate(values)}
    (line,) = (line for line in document.render(results).splitlines() if line.startswith("- `b`"))
    # the first two differences, 1 and 2: deviation 0.7071, half width t(1) 12.7062 / sqrt(2) = 6.353 from 1.5;
    # all three at 97.5%: t(2) 6.2053, half width 2.069
    assert line == (
        "- `b` over `a`: +1.33 points (95% interval -0.10 to +2.77), n = 3; the interval holds zero. It was looked at "
        "after 2 seeds, too: +1.50 points (95% interval -4.85 to +7.85); the interval that allows for two looks "
        "(97.5%) is -0.74 to +3.40"
    )
    results = {item: record for item, record in results.items() if item.seed < 2}
    assert "looked at" not in document.render(results)


def test_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(picture, "save", lambda figure, path: drawn.append(figure) or path)
    monkeypatch.setattr(picture, "GAINS", (Gain("fast_kd", "fast", looked_after=2),))
    tops = {"fast": (0.90, 0.91, 0.92), "fast_kd": (0.91, 0.93, 0.93), "lite0": (0.95,), "r222": (0.5,)}
    results = {
        Item(n, s): _record(Item(n, s), top1, role="student" if n == "fast_kd" else "baseline")
        for n, values in tops.items()
        for s, top1 in enumerate(values)
    }
    assert picture.draw_measured(results, tmp_path / "cifar.svg") == tmp_path / "cifar.svg"
    ladder, forest = drawn[0].axes
    assert [text.get_text() for text in ladder.get_yticklabels()] == ["fast", "fast_kd", "lite0"]  # rising
    (costs,) = ladder.child_axes
    assert costs.get_yticklabels()[0].get_text() == "0.00M params, 2 CPU-min, n = 3"
    low, high = ladder.containers[0].lines[2][0].get_segments()[0]
    assert (low[0], high[0]) == (pytest.approx(0.90), pytest.approx(0.92))  # deviation 1 point, by hand
    assert [text.get_text() for text in forest.get_yticklabels()] == ["fast_kd"]
    (said,) = forest.child_axes
    # as in the page: three seeds of which two had been looked at
    assert [text.get_text() for text in said.get_yticklabels()] == ["+1.33 (-0.74 to +3.40), n = 3"]
    assert picture.draw_measured({}, tmp_path / "cifar.svg") is None


def test_a_recipe_that_was_changed_is_measured_anew_and_its_old_run_is_not_taken(tmp_path: Path) -> None:
    item, place = Item("lenet_cifar10", 0), _place(tmp_path)
    longer = Place(tmp_path, 1, {item.recipe: ("train.epochs=11",)})
    elsewhere = Place(tmp_path, 1, {item.recipe: (f"data.root={tmp_path}",)})
    results = {item: _done(place, item)}
    assert queue.pending(place, results, [item]) == queue.pending(elsewhere, results, [item]) == []
    assert queue.pending(longer, results, [item]) == [item]
    run = create_run(tmp_path, item.recipe)
    run.write_info(status="interrupted", seeds={"train": 0})
    run.write_recipe(place.recipe(item))
    assert find_run(place, item) is not None
    assert find_run(longer, item) is None


def test_few_labels_are_said_and_stand_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(picture, "save", lambda figure, path: drawn.append(figure) or path)
    all_of_them = _record(Item("fast", 0), 0.9, role="baseline")
    few = _record(Item("few_fast", 0), 0.8, role="baseline") | {"train_images": 5_000}
    results = {Item("fast", 0): all_of_them, Item("few_fast", 0): few}
    picture.draw_measured(results, tmp_path / "cifar.svg")
    titles = [axes.get_title("left") or axes.get_title() for axes in drawn[0].axes]
    assert [title.partition(";")[0] for title in titles] == ["CIFAR-10: all 50,000 labels", "CIFAR-10: 5,000 labels"]
    rows = [line for line in document.render(results).splitlines() if line.startswith("| `f")]
    assert ["5,000 labels" in row for row in rows] == [False, True]
