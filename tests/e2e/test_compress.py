"""``distill compress``: the chain over a stand-in for pruning that trains a narrower network by the same recipe."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

import distill
import distill.pipeline
from distill.cli import app
from distill.compression.chain import ChainDefinition
from distill.compression.search import next_ratio
from distill.data.splits import load_splits
from distill.errors import (
    DivergedError,
    GateMissedError,
    InterruptedRunError,
    NotPrunableError,
    RecipeError,
    RunError,
    UsageError,
)
from distill.evaluation.drop import DropVerdict
from distill.evaluation.statistics import Interval
from distill.events import CheckpointSaved
from distill.files import sha256_file
from distill.models.onnx_open import open_onnx
from distill.models.trained import load_trained
from distill.pipeline import Compressed, Options, RunResult, train_student
from distill.recipe import Recipe
from distill.results.figures import Figures
from distill.runs import RunFolder
from distill.runs.checkpoints import MODEL_FILE, best_checkpoint

MODULE = sys.modules["distill.pipeline.compress"]  # the verb hides it


def _cli(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture(scope="module")
def student(
    teacher_run: RunResult, student_recipe: Callable[..., Recipe], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    options = Options(runs_dir=tmp_path_factory.mktemp("compress") / "runs", threads=1)
    recipe = student_recipe("name=small", "train.epochs=2", "model.width=16")
    return train_student(recipe, teacher=str(teacher_run.run), options=options).run


@pytest.fixture
def cuts(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Which shares were cut, by the stand-in for pruning."""
    made: list[float] = []

    def narrower(run: Path, ratio: float, definition: ChainDefinition, options: Options) -> Path:
        made.append(ratio)
        recipe = RunFolder(run).recipe()
        model = recipe.model.model_copy(update={"width": max(2, round(16 * ratio**0.5))})
        train = recipe.train.model_copy(update={"epochs": definition.epochs or recipe.train.epochs})
        recipe = recipe.model_copy(update={"name": "small_half", "model": model, "train": train})
        return train_student(recipe, options=options).run

    def cost(_run: Path, ratio: float, *_: object) -> Figures:
        return Figures(params=round(1e9 * ratio), gmacs=ratio)  # of no network that was tried

    monkeypatch.setattr(MODULE, "cut_run", narrower)
    monkeypatch.setattr(MODULE, "cut_cost", cost)
    monkeypatch.setattr(MODULE, "require_torch_pruning", lambda: None)
    return made


@pytest.fixture
def copy(student: Path, tmp_path: Path) -> Path:
    """The student in a folder of runs of the test's own."""
    run = tmp_path / "runs" / "small" / "001"
    shutil.copytree(student, run, symlinks=True)
    return run


def _compress(run: Path, **more: object) -> Compressed:
    options = Options(runs_dir=run.parents[1], threads=1, on_event=more.pop("on_event", None))
    settings = {"max_drop": 0.9, "trials": 2, "goal": "macs", "epochs": 1, "options": options} | more
    return distill.compress(run, **settings)


def test_the_smallest_that_holds_ships_and_all_is_measured(copy: Path, cuts: list[float], tmp_path: Path) -> None:
    made = _compress(copy)
    assert cuts == [0.5, 0.25]
    assert [each.ratio for each in made.candidates] == [1.0, 0.5, 0.25]
    assert made.best == made.candidates[2]
    assert made.file == tmp_path / "compressed" / "small" / "exports" / "small_to25_int8.onnx"
    assert [(row.name, row.runtime) for row in made.comparison.rows] == [
        ("tiny_teacher", "torch fp32"),
        ("small", "torch fp32"),
        ("small_fp32", "onnxruntime fp32"),
        ("small_int8", "onnxruntime int8"),
        ("small_half", "torch fp32"),
        ("small_to25_fp32", "onnxruntime fp32"),
        ("small_to25_int8", "onnxruntime int8"),
    ]
    assert all(row.latency_b1_ms for row in made.comparison.rows)
    assert {row.baseline for row in made.comparison.rows} == {str(copy)}
    top1 = {row.name: row.test_top1 for row in made.comparison.rows}
    int8 = made.comparison.rows[-1]
    assert int8.baseline_difference == pytest.approx(top1[int8.name] - top1["small"])
    assert made.plot.stat().st_size > 0
    document = json.loads((tmp_path / "compressed" / "small" / "result.json").read_text())
    assert [each["best"] for each in document["candidates"]] == [False, False, True]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["compressed", "runs"]


def test_a_file_is_judged_against_the_run_that_the_chain_began_with(copy: Path, cuts: list[float]) -> None:
    """Against the validation labels and answers, asked here."""
    made = _compress(copy, trials=1)
    val = load_splits(RunFolder(copy).recipe().data).val
    pixels = torch.from_numpy(val.take(slice(None)))
    source = load_trained(RunFolder(copy), device=torch.device("cpu"))
    theirs = (source.logits(pixels).numpy().argmax(1) == val.labels).mean()
    for each in made.candidates:
        file = open_onnx(made.folder / "exports" / each.shipped.file)
        ours = (file.logits(pixels).numpy().argmax(1) == val.labels).mean()
        assert each.drop.drop.estimate == pytest.approx(theirs - ours)
        assert each.drop.reference == pytest.approx(theirs)


def test_finished_steps_are_not_repeated(copy: Path, cuts: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    first = _compress(copy)
    for verb in ("quantize", "export", "cut_run", "resumed_or"):
        monkeypatch.setattr(MODULE, verb, lambda *_, **__: pytest.fail("done again"))
    told: list[str] = []
    again = _compress(copy, on_event=lambda event: told.append(str(getattr(event, "message", ""))))
    assert not [text for text in told if text.startswith("cut ")]
    assert len([text for text in told if "done before" in text]) == 3
    assert [each.shipped.sha256 for each in again.candidates] == [each.shipped.sha256 for each in first.candidates]
    assert [each.seconds for each in again.candidates] == [each.seconds for each in first.candidates]


def test_a_file_that_was_damaged_is_made_again_and_nothing_is_trained(copy: Path, cuts: list[float]) -> None:
    first = _compress(copy, trials=1)
    first.file.write_bytes(first.file.read_bytes()[:-1])
    again = _compress(copy, trials=1)
    assert sha256_file(first.file) == again.best.shipped.sha256
    assert open_onnx(first.file).about.weights_sha256 == open_onnx(first.fp32).about.weights_sha256
    assert cuts == [0.5]


def test_a_killed_chain_goes_on_within_the_candidate_to_the_same_bytes(
    copy: Path, student: Path, cuts: list[float], tmp_path: Path
) -> None:
    def stop(event: object) -> None:
        if isinstance(event, CheckpointSaved):
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError) as caught:
        _compress(copy, trials=1, epochs=3, on_event=stop)
    assert "compressed" in caught.value.message
    assert "same command again" in caught.value.hint
    resumed = _compress(copy, trials=1, epochs=3)
    assert cuts == [0.5]
    other = tmp_path / "other" / "runs" / "small" / "001"
    shutil.copytree(student, other, symlinks=True)
    whole = _compress(other, trials=1, epochs=3)
    assert cuts == [0.5, 0.5]
    weights = [
        sha256_file(best_checkpoint(RunFolder(made.folder / made.candidates[1].run).checkpoints) / MODEL_FILE)
        for made in (resumed, whole)
    ]
    assert weights[0] == weights[1]


def test_what_may_be_lost_can_be_changed_without_training(copy: Path, cuts: list[float]) -> None:
    _compress(copy, trials=1)
    again = _compress(copy, trials=1, max_drop=0.8)
    assert {each.drop.allowed for each in again.candidates} == {0.8}
    assert cuts == [0.5]


def _strict(monkeypatch: pytest.MonkeyPatch, most: float) -> None:
    """No int8 file loses less than ``most``."""
    quantize = MODULE.quantize

    def missing(run: Path, *, max_drop: float, **more: object) -> object:
        if max_drop < most:
            raise GateMissedError("no int8 file is found to lose so little")
        return quantize(run, max_drop=max_drop, **more)

    monkeypatch.setattr(MODULE, "quantize", missing)


def test_no_file_of_an_earlier_goal_stays_where_none_is_found(
    copy: Path, cuts: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _compress(copy, trials=1).folder
    assert len(list((folder / "exports").glob("*_int8.onnx"))) == 2
    _strict(monkeypatch, 0.85)
    with pytest.raises(GateMissedError):
        _compress(copy, trials=1, max_drop=0.8)
    assert not (folder / "exports" / "small_int8.onnx").exists()
    assert not (folder / "result.json").exists()
    made = _compress(copy, trials=1, max_drop=0.9)
    assert made.candidates[0].holds
    assert made.file.is_file()


def test_no_file_of_an_earlier_goal_stays_beside_those_of_this_one(copy: Path, cuts: list[float]) -> None:
    """Whatever is in exports/ lost no more than is allowed now: shells are told to take all of it."""
    folder = _compress(copy, trials=2).folder
    assert {each.name for each in (folder / "exports").glob("*_int8.onnx")} >= {"small_to25_int8.onnx"}
    made = _compress(copy, trials=1, max_drop=0.8)
    kept = {made.folder / "exports" / each.shipped.file for each in made.candidates if each.shipped}
    assert set((folder / "exports").glob("*_int8.onnx")) == kept
    assert {each.name for each in (folder / "exports").glob("*_fp32.onnx")} <= {
        "small_fp32.onnx",
        "small_to50_fp32.onnx",
    }
    assert len(list((folder / "trials").glob("*/001"))) == 2, "what is trained stays"


def test_a_mistake_of_the_recipes_own_is_no_share_out_of_reach(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mistaken(*_: object) -> Path:
        raise RecipeError("name: should be shorter")

    monkeypatch.setattr(MODULE, "require_torch_pruning", lambda: None)
    monkeypatch.setattr(MODULE, "cut_run", mistaken)
    with pytest.raises(RecipeError, match="should be shorter"):
        _compress(copy, trials=2)


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"criterion": "x"}, {"trials": -1}])
def test_what_no_cut_can_be_made_by_is_refused_at_once(copy: Path, cuts: list[float], wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        _compress(copy, **wrong)
    assert not (copy.parents[2] / "compressed").exists()


def test_a_candidates_file_goes_where_it_loses_more_than_is_allowed_now(
    copy: Path, cuts: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _compress(copy, trials=1).folder

    def drop(chain: object, run: RunFolder) -> DropVerdict:
        lost = 0.0 if run.path.resolve() == copy.resolve() else 0.85
        return DropVerdict(Interval(lost, lost - 0.1, lost + 0.1), 0.97, chain.max_drop, 15, None)

    monkeypatch.setattr(MODULE._Chain, "_network_drop", drop)
    made = _compress(copy, trials=1, max_drop=0.8)
    assert [each.holds for each in made.candidates] == [True, False]
    assert [each.name for each in (folder / "exports").glob("*_int8.onnx")] == ["small_int8.onnx"]


def test_a_cut_that_cannot_be_taught_is_told_and_larger_ones_are_tried(
    copy: Path, cuts: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    narrower = MODULE.cut_run

    def diverging(run: Path, ratio: float, *rest: object) -> Path:
        if ratio == 0.5:
            raise DivergedError("epoch 1: the loss is not finite")
        return narrower(run, ratio, *rest)

    monkeypatch.setattr(MODULE, "cut_run", diverging)
    told: list[str] = []
    made = _compress(copy, on_event=lambda event: told.append(str(getattr(event, "message", ""))))
    assert [each.ratio for each in made.candidates] == [1.0, 0.7071]
    assert "50%: epoch 1: the loss is not finite" in told


def test_two_candidates_never_have_one_file() -> None:
    for enough in np.geomspace(0.03, 1.0, 300):
        tried: dict[float, bool] = {}
        while (ratio := next_ratio(tried, trials=12)) is not None:
            tried[ratio] = ratio >= enough
        assert len({MODULE.stem_of("small", each) for each in tried}) == len(tried), tried


def test_other_cuts_are_another_chain(copy: Path, cuts: list[float], tmp_path: Path) -> None:
    _compress(copy, trials=0, epochs=3)
    _compress(copy, trials=1)  # nothing was cut before
    with pytest.raises(UsageError, match="holds another chain: other epochs") as caught:
        _compress(copy, trials=0, epochs=2)
    assert "--name" in caught.value.hint
    assert _compress(copy, trials=0, epochs=2, name="other").folder == tmp_path / "compressed" / "other"


def test_a_name_cannot_leave_the_folder_of_chains(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a chain's name"):
        _compress(copy, trials=0, name="../../elsewhere")
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_what_cannot_be_cut_is_told_and_ships_as_it_is(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reach(run: Path, ratio: float, *_: object) -> Path:
        if ratio == 0.5:
            raise UsageError("0.5 is out of reach")
        raise NotPrunableError("transformers cannot be cut")

    monkeypatch.setattr(MODULE, "require_torch_pruning", lambda: None)
    monkeypatch.setattr(MODULE, "cut_run", reach)
    told: list[str] = []
    made = _compress(copy, trials=9, on_event=lambda event: told.append(str(getattr(event, "message", ""))))
    assert [each.ratio for each in made.candidates] == [1.0]
    assert [text for text in told if "reach" in text or "transformers" in text] == [
        "50%: 0.5 is out of reach",
        "71%: transformers cannot be cut",
    ]


def test_a_damaged_list_of_steps_is_one_line(copy: Path, tmp_path: Path) -> None:
    _compress(copy, trials=0)
    steps = tmp_path / "compressed" / "small" / "steps.json"
    steps.write_text('{"steps": [{"ratio": 1.0}]}')
    with pytest.raises(RunError, match=r"steps\.json: damaged"):
        _compress(copy, trials=0)
    steps.unlink()
    assert _compress(copy, trials=0).best.ratio == 1.0


def test_what_a_verb_returned_stands_for_its_file(copy: Path, cuts: list[float]) -> None:
    made = _compress(copy, trials=0)
    table = distill.compare([made], runs_dir=copy.parents[1], latency=False)
    assert [row.run for row in table.rows if row.source_run] == [str(made.file)]
    assert distill.evaluate(made, plots=False).result.top1 == table.rows[-1].test_top1
    assert distill.load_model(made).name == "small_int8"


def _lose_all_but(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every other network loses too much."""

    def drop(chain: object, run: RunFolder) -> DropVerdict:
        lost = 0.0 if run.path.resolve() == source.resolve() else 0.95
        return DropVerdict(Interval(lost, lost - 0.1, lost + 0.1), 0.97, chain.max_drop, 15, None)

    monkeypatch.setattr(MODULE._Chain, "_network_drop", drop)


def test_a_network_that_loses_too_much_is_not_quantised(
    copy: Path, cuts: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    _lose_all_but(copy, monkeypatch)
    told: list[str] = []
    made = _compress(copy, on_event=lambda event: told.append(str(getattr(event, "message", ""))))
    assert cuts == [0.5, 0.7071]
    assert [each.holds for each in made.candidates] == [True, False, False]
    assert made.best.ratio == 1.0
    assert len(list((made.folder / "exports").glob("*.onnx"))) == 2
    assert any(text.startswith("50%: too much: loses 95.00 points") for text in told)
    assert any(
        text.startswith("cut 2 of at most 2: at most 71% of the multiply-accumulates stay; at most") for text in told
    )


def test_where_the_run_itself_has_no_int8_file_nothing_is_cut(
    copy: Path, cuts: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missed(*_: object, **__: object) -> None:
        raise GateMissedError("no int8 file is found to lose at most 0.3 points")

    monkeypatch.setattr(MODULE, "quantize", missed)
    result = _cli("compress", str(copy), "--runs", str(copy.parents[1]), "-q")
    assert (result.exit_code, result.stdout, cuts) == (3, "", [])


def test_what_so_few_images_cannot_show_is_told_before_anything_is_cut(copy: Path, cuts: list[float]) -> None:
    """Of the run itself nothing is lost, and even that is not shown of 15 images."""
    _compress(copy, trials=0)
    command = ("compress", str(copy), "--runs", str(copy.parents[1]), "--prove", "--max-drop", "0.05", "-q")
    result = _cli(*command)
    assert (result.exit_code, result.stdout, cuts) == (3, "", [])
    assert "54 images, answered alike, would show it" in result.stderr
    folder = copy.parents[2] / "compressed/small"
    assert not (folder / "result.json").exists()
    assert not list((folder / "exports").glob("*int8.onnx"))


def test_the_command_and_its_document(copy: Path, cuts: list[float]) -> None:
    arguments = ["compress", "small", "--runs", str(copy.parents[1]), "--max-drop", "0.9", "--trials", "1", "-q"]
    result = _cli(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert Path(document["file"]).is_file()
    assert Path(document["fp32"]).is_file()
    assert {row["name"] for row in document["comparison"]["rows"]} >= {"small", "small_int8"}
    table = _cli(*arguments)
    assert table.exit_code == 0, table.stderr
    assert "least latency" in table.stdout
    assert "95% interval, paired" in " ".join(table.stdout.split())  # it wraps where paths are long
    assert cuts == [0.5]


def test_channels_are_cut_and_a_stopped_teaching_is_taken_up(copy: Path) -> None:
    """No stand-in: the cut run, the run taught from it, and nothing twice."""

    def stop(event: object) -> None:
        if isinstance(event, CheckpointSaved):
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError):
        _compress(copy, trials=1, epochs=2, on_event=stop)
    made = _compress(copy, trials=1, epochs=2)
    runs = sorted(path for path in (made.folder / "trials").glob("*/[0-9]*"))
    assert [path.parent.name for path in runs] == ["0.5000", "0.5000_cut"]
    run = runs[0]
    whole, half = made.candidates
    assert half.gmacs <= whole.gmacs / 2
    assert made.folder / half.run == run
    assert RunFolder(run).recipe().model.widths
    assert made.best == half
    assert open_onnx(made.file).about.params == half.params < whole.params
    rows = {row.name: row for row in made.comparison.rows}
    assert rows["small_to50_int8"].source_run == str(run)


def test_no_network_is_taught_twice(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No stand-in: of 16 channels 8 can stay, and nothing between; every larger share gives the network of before."""
    _lose_all_but(copy, monkeypatch)
    told: list[str] = []
    made = _compress(copy, trials=4, on_event=lambda event: told.append(str(getattr(event, "message", ""))))
    assert [each.ratio for each in made.candidates] == [1.0, 0.5]
    assert [text[:32] for text in told if "gives" in text] == [
        "71% gives the network of 50%: to",
        "84% gives the network of 50%: to",
        "92% gives the network of 50%: to",
    ]
    assert [path.name for path in sorted((made.folder / "trials").iterdir())] == ["0.5000", "0.5000_cut"]


def test_without_the_pruning_library_it_is_said_before_anything(
    copy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    result = _cli("compress", str(copy), "--runs", str(copy.parents[1]))
    assert result.exit_code == 4
    assert "pip install torch-pruning" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_a_run_without_validation_images_is_refused(train: Callable[..., RunResult], tmp_path: Path) -> None:
    run = train("data.val_fraction=0", "train.epochs=1", 'teacher.logits="live"').run
    result = _cli("compress", str(run), "--runs", str(tmp_path / "runs"))
    assert result.exit_code == 2
    assert "has no validation images to judge by" in result.stderr


def test_where_rounding_costs_too_much_the_file_is_of_a_run_that_learned_to_round(
    copy: Path, cuts: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chain keeps that run in its folder, and shows it with its file."""
    verb = sys.modules["distill.pipeline.quantize"]
    real, asked = verb.choose_int8, []

    def refusing_first(model: object, *, allowed: float, **options: object) -> object:
        asked.append(allowed)
        return real(model, allowed=-1.0 if len(asked) == 1 else allowed, **options)

    monkeypatch.setattr(verb, "choose_int8", refusing_first)
    made = _compress(copy, trials=0)
    folder = tmp_path / "compressed" / "small"
    assert made.best.shipped is not None
    assert made.best.shipped.trained == "qat/1.0000/001"
    rounded = RunFolder(folder / made.best.shipped.trained)
    assert rounded.recipe().train.fake_quantize == 7
    rows = {row.name: row for row in made.comparison.rows}
    assert rows["small_int8"].source_run == str(rounded.path)
    assert rows[rounded.recipe().name].run == str(rounded.path)
    assert json.loads((folder / "steps.json").read_text())["steps"][0]["shipped"]["trained"] == "qat/1.0000/001"
    again = _compress(copy, trials=0)  # judged before: nothing is trained, or quantised, again
    assert len(asked) == 2
    assert again.best.shipped.sha256 == made.best.shipped.sha256
