"""Searches by budget through the real verb, on synthetic images: measured, trained, chosen, exported, proven."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill.data.splits import load_splits
from distill.errors import InterruptedRunError, RunError, UsageError
from distill.evaluation.cost import spec_cost
from distill.events import EpochDone, Event, Note, RunStarted
from distill.models.onnx_open import open_onnx
from distill.pipeline import Options, RunResult, finetune_teacher, train_student
from distill.recipe import Recipe, load_recipe
from distill.results.search import SearchReport
from distill.runs import RunFolder
from distill.searches import search
from distill.searches.bench import Bench, Target
from distill.searches.finals import Final
from distill.searches.reference import AccuracyReference
from distill.searches.ship import Shipping, ship

MODEL = (
    "model={source: students, name: resnet, blocks: [1, 1], channels: [8, 16], strides: [1, 2]}",
    "search={depth: [[1, 2], [1, 2]], width: {min: 4, max: 32, multiple: 4}}",
    "data.image_size=16",
    "model.input_size=16",
    "augment.view_seed=30",
)
BUDGET = {"params": 9000.0}
ASKED: dict[str, Any] = {"budgets": BUDGET, "evaluations": 5, "seeds": 2, "max_drop": 0.9}


@pytest.fixture
def searched(
    student_recipe: Callable[..., Recipe], teacher_run: RunResult, tmp_path: Path
) -> Callable[..., SearchReport]:
    """``searched(...)`` searches for the tiny student's best shape."""

    def run(listener: Any = None, *, overrides: tuple[str, ...] = (), **asked: Any) -> SearchReport:
        options = Options(runs_dir=tmp_path / "runs", on_event=listener, command=("distill", "search", "..."))
        teacher = asked.pop("teacher", str(teacher_run.run))
        return search(student_recipe(*MODEL, *overrides), teacher=teacher, options=options, **(ASKED | asked))

    return run


@pytest.fixture(autouse=True)
def _timed_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate's timing takes seconds that prove nothing here."""
    from distill.searches import search_run

    monkeypatch.setattr(search_run, "certify", partial(search_run.certify, seconds=0.1))


class Listener:
    """Counts epochs and runs; presses Ctrl-C, or kills, at an event."""

    def __init__(self, *, kill_at: int | None = None, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.epochs: list[tuple[str, int]] = []
        self.started: list[tuple[str, int]] = []
        self.notes: list[str] = []
        self.events = 0
        self.kill_at, self.error = kill_at, error
        self.run = ""

    def __call__(self, event: Event) -> None:
        self.events += 1
        if isinstance(event, RunStarted):
            self.run = event.run
            self.started.append((event.run, event.epoch))
        if isinstance(event, EpochDone):
            self.epochs.append((self.run, event.epoch))
        if isinstance(event, Note):
            self.notes.append(event.message)
        if self.events == self.kill_at:
            raise self.error


@pytest.mark.slow
def test_a_search_ends_in_a_file_within_its_budget(searched: Callable[..., SearchReport], tmp_path: Path) -> None:
    listener = Listener()
    report = searched(listener)
    folder = tmp_path / "searches" / "tiny_student"
    assert report.folder == str(folder)
    assert report.missed is None
    assert len(set(listener.epochs)) == len(listener.epochs), "an epoch was trained twice"

    kinds = [kind for row in report.finalists for kind in row.kinds]
    assert kinds.count("uniform") == 1
    assert kinds.count("random") == 1
    assert "search" in kinds
    assert all(row.seeds == 2 and len(row.runs) == 2 for row in report.finalists)
    assert all(row.costs["params"] <= 9000 for row in (*report.finalists, *report.tried))
    (taken,) = (row for row in report.finalists if row.chosen)
    assert report.helped or "uniform" in taken.kinds
    assert ("search did not help: take the uniform one" in report.advice) is not report.helped

    file = open_onnx(folder / "best.onnx")
    assert report.file == str(file.path)
    assert file.about.params == taken.costs["params"]
    assert load_recipe(folder / "best.yaml").model.channels == tuple(taken.params["model.channels"])
    run = RunFolder(Path(taken.runs[0]))
    assert np.isclose(run.result()["val_top1"], report.finalists[0].val_top1, atol=1.0)
    assert b"<svg" in Path(report.plot or "").read_bytes()
    certificate = json.loads((folder / "certificate.json").read_text())
    assert certificate["file"]["sha256"] == file.sha256
    assert json.loads((folder / "result.json").read_text())["drop"] == report.drop
    assert not (folder / "lock.json").exists()


def test_a_rung_is_a_prefix_of_the_run_that_was_never_stopped(
    searched: Callable[..., SearchReport], teacher_run: RunResult, tmp_path: Path
) -> None:
    listener = Listener()
    report = searched(listener, seeds=1)
    again = [run for run, epoch in listener.started if epoch > 0]
    assert again, "no run went on from a rung"
    paused = RunFolder(Path(again[0]))
    recipe = RunFolder(paused.path).recipe()
    assert recipe.search is None
    alone = train_student(recipe, options=Options(runs_dir=tmp_path / "alone", threads=recipe.train.thread_count))
    assert (paused.path / "metrics.jsonl").read_bytes() == (alone.run / "metrics.jsonl").read_bytes()
    unfinished = [row for row in report.tried if row.epochs < 3]
    assert unfinished, "everything was trained to its end"


@pytest.mark.slow
def test_killed_anywhere_it_ends_in_the_same_result(searched: Callable[..., SearchReport], tmp_path: Path) -> None:
    class Killed(BaseException):
        """As kill -9 would: nothing is caught, nothing saved."""

    whole = searched(name="whole", evaluations=4)
    chance = np.random.default_rng(30)
    for kill_at in [*chance.integers(1, 300, 4), 3, 40]:
        for error in (Killed,):
            try:
                searched(Listener(kill_at=int(kill_at), error=error), name="cut", evaluations=4)
            except Killed:
                continue
    again = searched(name="cut", evaluations=4)

    def bare(report: SearchReport) -> str:
        tree = report.to_json() | {"name": "", "certificate": ""}
        text = json.dumps(tree).replace(str(tmp_path / "searches" / report.name), "")
        rows = json.loads(text)
        for row in rows["finalists"]:
            row.pop("runs")  # their numbers are those of the order in which folders were made
        return json.dumps(rows)

    assert bare(again) == bare(whole)


def test_ctrl_c_says_how_to_go_on(searched: Callable[..., SearchReport]) -> None:
    with pytest.raises(InterruptedRunError) as error:
        searched(Listener(kill_at=60))
    assert error.value.exit_code == 130
    assert error.value.hint == "to continue: distill search ..."


def test_a_finished_search_costs_nothing_and_may_be_judged_anew(searched: Callable[..., SearchReport]) -> None:
    first = searched(seeds=1, evaluations=4)
    assert {row.costs["size_mb"] for row in (*first.finalists, *first.tried)} == {None}, "none was exported"
    listener = Listener()
    again = searched(listener, seeds=1, evaluations=4, max_drop=0.5)
    assert listener.epochs == []
    assert [row.val_top1 for row in again.finalists] == [row.val_top1 for row in first.finalists]
    with pytest.raises(UsageError, match="holds another search: other budgets"):
        searched(seeds=1, evaluations=4, budgets={"params": 8000})


@pytest.mark.slow
def test_more_evaluations_end_as_a_search_that_had_them_from_the_start(
    searched: Callable[..., SearchReport], tmp_path: Path
) -> None:
    """What is trained straight to its end is judged at each rung on its way: a later search may rank it there."""
    epochs = ("train.epochs=9",)
    searched(overrides=epochs, evaluations=4, seeds=1)
    wider = searched(overrides=epochs, evaluations=9, seeds=1)
    fresh = searched(overrides=epochs, evaluations=9, seeds=1, name="fresh")
    assert wider.tried == fresh.tried
    one, two = (
        {
            key: entry["scores"]
            for key, entry in json.loads((tmp_path / "searches" / name / "trials.json").read_text()).items()
        }
        for name in ("tiny_student", "fresh")
    )
    assert {key: one[key] for key in two} == two
    assert {1, 3} <= {int(epoch) for scores in one.values() for epoch in scores if "9" in scores}


def test_the_recipe_it_writes_has_the_teacher_it_asked(
    searched: Callable[..., SearchReport], teacher_run: RunResult
) -> None:
    report = searched(evaluations=4, seeds=1)
    assert load_recipe(report.best_recipe).teacher.run == str(teacher_run.run)


def test_what_pytorch_weighs_is_no_promise_of_a_file(searched: Callable[..., SearchReport]) -> None:
    report = searched(evaluations=4, seeds=1, runtime="torch", budgets={"params": 9000, "size_mb": 0.037})
    certificate = json.loads(Path(report.certificate).read_text())
    assert [each["quantity"] for each in certificate["promises"]] == ["params"]


def test_a_limit_of_the_recipes_own_is_named(searched: Callable[..., SearchReport]) -> None:
    report = searched(overrides=("model.max_params=60",), budgets={"params": 9000})
    assert "the recipe's model.max_params is 60" in report.missed
    assert report.ways == (("--set", f"model.max_params={report.nearest['params']:.0f}"),)
    both = searched(overrides=("model.max_params=60",), budgets={"params": 50}, name="both")
    assert [option for option, _ in both.ways] == ["--budget", "--set"]


def test_a_reference_of_other_classes_is_refused_before_a_folder_is_there(
    searched: Callable[..., SearchReport], teacher_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    options = Options(runs_dir=tmp_path / "runs", threads=1)
    other = finetune_teacher(
        teacher_recipe("name=other", "data={name: digits, limit: 100, test_limit: 20}", "train.epochs=1"),
        options=options,
    )
    with pytest.raises(UsageError, match="knows other classes"):
        searched(against=str(other.run))
    assert not (tmp_path / "searches").exists()


def test_nothing_that_fits_is_an_answer(searched: Callable[..., SearchReport]) -> None:
    listener = Listener()
    report = searched(listener, budgets={"params": 50, "size_mb": 9.0})
    assert listener.epochs == []
    assert report.evaluations == 0
    assert report.missed is not None
    assert report.nearest is not None
    (key, value), *others = report.nearest.items()
    assert key == "params"
    assert others == []
    assert 50 < report.prices[0].value <= value, "the nearest budget would hold the smallest shape"
    assert report.finalists == ()
    allowed = {"params": value, "size_mb": 9.0}
    wider = searched(seeds=1, evaluations=4, budgets=allowed)  # of the same name: nothing was trained
    assert wider.missed is None
    (taken,) = (row for row in wider.finalists if row.chosen)
    assert taken.costs["size_mb"] == pytest.approx(Path(wider.file or "").stat().st_size / 1e6, abs=1e-3)
    assert wider.budgets == json.loads((Path(wider.folder) / "search.json").read_text())["budgets"] == allowed
    with pytest.raises(UsageError, match="holds another search: other budgets"):
        searched(seeds=1, evaluations=4, budgets={"params": 50, "size_mb": 9.0})


def test_a_loss_that_is_too_large_shows_what_more_would_buy(searched: Callable[..., SearchReport]) -> None:
    report = searched(seeds=1, evaluations=4, max_drop=0.0, prove=True)
    assert report.missed is not None
    assert "against tiny_teacher" in report.missed
    assert report.drop is not None
    assert report.drop["verdict"] in ("not shown", "refuted")
    assert report.priced == "params"
    values = [point.value for point in report.prices]
    assert values == sorted(values)
    assert all(value <= 9000 for value in values)
    for before, point in zip(report.prices, report.prices[1:], strict=False):
        gain = 100 * (point.val_top1 - before.val_top1) / (point.value - before.value)
        assert point.gain_per_unit == pytest.approx(gain)


def _measuring(tmp_path: Path, formula: str) -> str:
    script = tmp_path / "measure.py"
    log = tmp_path / "measured.txt"
    script.write_text(
        "import json, os, sys\n"
        f"size = os.path.getsize(sys.argv[1]) / 1e6\nopen({str(log)!r}, 'a').write('x')\n"
        f"print(json.dumps({{'latency_b1_ms': {formula}}}))\n"
    )
    return f"{sys.executable} {script} {{file}}"


@pytest.mark.slow
def test_a_command_may_measure_and_what_it_said_is_kept(searched: Callable[..., SearchReport], tmp_path: Path) -> None:
    asked = {"budgets": {"latency_b1_ms": 30.0}, "measure": _measuring(tmp_path, "500 * size"), "seeds": 1}
    report = searched(evaluations=4, **asked)
    assert report.machine == asked["measure"]
    assert report.noise == 0.0
    log = tmp_path / "measured.txt"
    count = len(log.read_text())
    for row in report.tried:
        assert row.costs["latency_b1_ms"] <= 30.0
        assert row.costs["latency_b1_ms"] == pytest.approx(500 * row.costs["size_mb"], rel=0.02)
    assert max(row.share for row in report.tried) >= 0.85
    searched(evaluations=4, name="again", **asked)
    assert len(log.read_text()) == count, "a shape was measured twice on one machine"


@pytest.mark.slow
def test_a_trained_file_that_is_over_its_budget_is_cut_and_trained_on(
    student_recipe: Callable[..., Recipe], teacher_run: RunResult, tmp_path: Path
) -> None:
    """What times files here says that trained ones take a quarter longer than the candidates did."""
    options = Options(runs_dir=tmp_path / "runs")
    recipe = student_recipe(*MODEL, "train.epochs=1").model_copy(update={"search": None})
    run = RunFolder(train_student(recipe, teacher=str(teacher_run.run), options=options).run)
    formula = "500 * size * (1.25 if sys.argv[1].endswith('best.onnx') else 1)"
    target = Target("onnxruntime", 1, _measuring(tmp_path, formula), ("latency_b1_ms",))
    bench = Bench(recipe, load_splits(recipe.data), target, tmp_path / "timings")
    allowed = bench.confirmed(recipe).of("latency_b1_ms")
    final = Final(("uniform",), None, (run,), (0,), np.ones((1, 15), dtype=bool))  # type: ignore[arg-type]
    shipping = Shipping(
        into=tmp_path / "search",
        runtime="onnxruntime",
        budgets={"latency_b1_ms": allowed},
        measured=bench.of_file,
        noise=bench.noise or 0.0,
        multiple=4,
        max_drop=0.9,
        prove=False,
        options=options,
    )
    shipping.into.mkdir()
    reference = AccuracyReference("teacher", np.ones(15, dtype=bool), None)
    made = ship(final, reference, shipping)
    assert made.over is None
    assert made.cut is not None
    assert made.cut.why.startswith("trained, its file took 1")
    assert made.cut.run.path.parent.parent == tmp_path / "search" / "cut"
    assert made.cut.run.path.parent.name.startswith(f"{run.path.name}-0.")
    assert (made.cut.run.status, made.cut.run.result()["epochs"]) == ("finished", 1)
    file = open_onnx(made.file or "")
    assert 500 * 1.25 * file.path.stat().st_size / 1e6 <= allowed * 1.03
    assert file.about.params == spec_cost(made.cut.run.recipe().model, 10).params < bench.confirmed(recipe).params
    count = len((tmp_path / "measured.txt").read_text())
    assert ship(final, reference, shipping).cut == made.cut
    assert len((tmp_path / "measured.txt").read_text()) == count


@pytest.mark.parametrize("formula", ["-1.0", "'fast'"])
def test_a_command_that_lies_ends_the_search_before_anything_is_trained(
    searched: Callable[..., SearchReport], tmp_path: Path, formula: str
) -> None:
    listener = Listener()
    with pytest.raises(RunError, match="no time above 0"):
        searched(listener, budgets={"latency_b1_ms": 1.0}, measure=_measuring(tmp_path, formula))
    assert listener.epochs == []


@pytest.mark.slow
def test_latency_is_measured_here_and_int8_ships(searched: Callable[..., SearchReport]) -> None:
    report = searched(
        budgets={"latency_b1_ms": 1000.0, "params": 3000.0}, runtime="onnxruntime-int8", seeds=1, evaluations=4
    )
    assert report.noise is not None
    if report.file is None:
        assert "no int8 file" in (report.missed or "")
    else:
        assert open_onnx(report.file).about.arithmetic == "int8"
    assert all(row.costs["latency_b1_ms"] > 0 for row in report.tried)


def test_what_cannot_be_searched_is_told_before_anything_begins(
    searched: Callable[..., SearchReport], teacher_run: RunResult, tmp_path: Path
) -> None:
    for asked, said in (
        ({"budgets": {"latency": 1.0}}, "a quantity, <=, and a number"),
        ({"budgets": {"params": -1}}, "no number above 0"),
        ({"budgets": {}}, "no budget"),
        ({"evaluations": 3}, "evaluations should be a whole number, 4 or more"),
        ({"runtime": "tvm"}, "--runtime tvm is none"),
        ({"measure": "time.sh"}, "has no {file}"),
        ({"budgets": {"size_mb": 1.0}, "measure": "time.sh {file}"}, "no budget is over a latency"),
        ({"hours": 0.0}, "is no time"),
    ):
        with pytest.raises(UsageError, match=said):
            searched(**asked)
    with pytest.raises(UsageError, match="has no teacher that can be asked"):
        searched(overrides=("objective.kind=supervised",), teacher=None)
    other = shutil.copytree(teacher_run.run, tmp_path / "elsewhere" / "tiny_teacher" / "001", symlinks=True)
    with pytest.raises(UsageError, match="has no teacher that can be asked") as several:
        searched(teacher=[str(teacher_run.run), str(other)])
    assert "--against RUN" in several.value.hint
    with pytest.raises(UsageError, match="val_fraction is 0"):
        searched(overrides=("data.val_fraction=0",))
    with pytest.raises(RunError, match="nobody"):
        searched(against="nobody")
    assert not list(tmp_path.glob("searches/*"))  # else the right call is another search than the wrong one


def test_a_space_that_runs_out_is_told_of_and_counted(searched: Callable[..., SearchReport]) -> None:
    listener = Listener()
    few = "search={depth: [[1, 2], [1, 1]], width: {min: 8, max: 8, multiple: 8}}"
    report = searched(listener, overrides=(few,), seeds=1, evaluations=4)
    assert "2 shapes tried, of 4: no other that fills the budgets was found" in listener.notes
    assert report.evaluations == 2 == sum(row.origin != "random" for row in report.tried)


def test_hours_are_kept_to_once_decided(searched: Callable[..., SearchReport]) -> None:
    listener = Listener()
    report = searched(listener, hours=1e-6, seeds=1, evaluations=12)
    assert report.evaluations == 4
    assert any("the least search takes about" in note for note in listener.notes)
    assert searched(hours=1e-6, seeds=1, evaluations=12).evaluations == 4
