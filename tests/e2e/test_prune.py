"""``distill prune``: a smaller run from a finished one, with its teacher and bank, that is a run like any other."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from distill.cli import app
from distill.comparison import compare
from distill.errors import RunError, UsageError
from distill.models.trained import load_trained
from distill.pipeline import Options, RunResult, export, prune, rerun, resume_run, train_student
from distill.runs import RunFolder, open_run

WIDE = ("model.width=32",)
UNTRAINED, RECORD = (sys.modules[f"distill.pipeline.{name}"] for name in ("untrained", "record"))


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory, teacher_run: RunResult, student_recipe) -> RunResult:
    options = Options(runs_dir=tmp_path_factory.mktemp("pruned") / "runs", threads=1)
    return train_student(student_recipe(*WIDE), teacher=str(teacher_run.run), options=options)


@pytest.fixture(scope="module")
def options(student: RunResult) -> Options:
    return Options(runs_dir=student.run.parents[1], threads=1, device="cpu")


@pytest.fixture(scope="module")
def pruned(student: RunResult, options: Options):
    return prune(student, macs=0.5, epochs=2, options=options)


def test_half_the_work_and_the_same_bank(student: RunResult, pruned) -> None:
    before, cut, run = (RunFolder(path) for path in (student.run, pruned.cut, pruned.run))
    assert cut.figures().gmacs <= 0.5 * before.figures().gmacs
    assert run.figures().params == cut.figures().params < before.figures().params
    assert run.info.teacher["sha256"] == before.info.teacher["sha256"]
    assert run.info.teacher["bank_key"] == before.info.teacher["bank_key"], "no teacher is asked again"
    assert len(run.metrics()) == 2
    assert run.recipe().objective == before.recipe().objective
    assert (pruned.before.params, pruned.after.params) == (before.figures().params, cut.figures().params)
    assert set(pruned.after.latency_ms) == {1}


def test_what_is_left_learns_as_a_whole_from_the_first_epoch_and_any_name_is_short_enough(
    student: RunResult, tmp_path: Path
) -> None:
    recipe = RunFolder(student.run).recipe()
    train = recipe.train.model_copy(update={"freeze_backbone_epochs": 1, "epochs": 2})
    recipe = recipe.model_copy(update={"name": "n" * 64, "train": train})
    mine = Options(runs_dir=tmp_path / "runs", threads=1, device="cpu")
    made = prune(train_student(recipe, options=mine).run, macs=0.5, epochs=1, options=mine)
    cut, run = (load_trained(RunFolder(path), device=torch.device("cpu")) for path in (made.cut, made.run))
    assert len(run.recipe.name) == 64
    after = run.module.state_dict()
    assert not torch.equal(after["stem.0.weight"], cut.module.state_dict()["stem.0.weight"])


def test_it_begins_with_the_weights_that_were_left(pruned) -> None:
    cut, run = RunFolder(pruned.cut), RunFolder(pruned.run)
    trained = load_trained(cut, device=torch.device("cpu"))
    assert run.info.extra["initial_sha256"] == trained.sha256
    assert run.info.extra["init_from"] == str(pruned.cut)
    source = load_trained(RunFolder(pruned.source), device=torch.device("cpu")).module.state_dict()
    old = {tuple(row.flatten().tolist()) for row in source["stem.0.weight"]}
    assert all(tuple(row.flatten().tolist()) in old for row in trained.module.state_dict()["stem.0.weight"])


def test_it_is_a_run_like_any_other(pruned, options: Options, tmp_path: Path) -> None:
    assert rerun(pruned.run, options=options).differences == ()
    assert resume_run(pruned.cut, options=options).epochs == 0, "finished"
    names = {row.name for row in compare([pruned.source, pruned.cut, pruned.run], latency=False).rows}
    assert {"tiny_student", "tiny_student_macs50", "tiny_student_macs50_cut"} <= names
    made = export(pruned.run, out=tmp_path / "small.onnx", options=options)
    assert made.parity.images > 0
    again = prune(pruned.run, params=int(0.8 * pruned.after.params), multiple=2, train=False, options=options)
    assert again.run is None
    assert again.after.params <= 0.8 * pruned.after.params
    with pytest.raises(UsageError, match="was cut and not trained"):
        rerun(again.cut, options=options)


def test_stopped_while_it_trains_on_it_ends_with_the_same_bytes(student, pruned, options: Options) -> None:
    class Stop(Exception):
        pass

    def after_one(event: object) -> None:
        if type(event).__name__ == "CheckpointSaved":
            raise Stop

    runs = options.runs_dir
    stopping = Options(runs_dir=runs, threads=1, device="cpu", on_event=after_one)
    with pytest.raises(Stop):
        prune(student, macs=0.5, epochs=2, options=stopping)
    cut = max((runs / "tiny_student_macs50").glob("0*"))
    resumed = resume_run(cut, options=options)
    ends = [load_trained(RunFolder(path), device=torch.device("cpu")).sha256 for path in (resumed.run, pruned.run)]
    assert ends[0] == ends[1]


@pytest.mark.parametrize("stage", ["write_recipe", "save_checkpoint", "write_identity", "write_result", "point_latest"])
def test_a_cut_that_was_killed_is_whole_or_says_to_cut_again(
    student, options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: object, **__: object) -> None:
        raise Killed

    runs = tmp_path / "runs"
    shutil.copytree(options.runs_dir / "tiny_student", runs / "tiny_student", symlinks=True)
    where = RunFolder if stage in ("write_recipe", "write_result", "point_latest") else UNTRAINED
    with monkeypatch.context() as patch:
        patch.setattr(where, stage, kill)
        patch.setattr(RECORD, "_write_end", lambda *_: None)  # nothing is said any more
        with pytest.raises(Killed):
            prune(
                runs / "tiny_student" / student.run.name, macs=0.5, train=False, options=replace(options, runs_dir=runs)
            )
    cut = RunFolder(next((runs / "tiny_student_macs50_cut").glob("0*")))
    if stage == "point_latest":
        assert cut.result()["val_top1"] is not None
        assert resume_run(cut.path, options=options).val_top1 == cut.result()["val_top1"]
        return
    with pytest.raises((RunError, UsageError)) as caught:
        resume_run(cut.path, options=options)
    if stage != "write_recipe":  # without one a run never began
        assert "was being cut when it was stopped" in caught.value.message
        assert caught.value.hint.startswith("make it again: distill prune ")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--macs", "0.5", "--params", "9"], "one goal is wanted"),
        ([], "one goal is wanted"),
        (["--macs", "1.5"], "--macs 1.5"),
        (["--macs", "0.001"], "is out of reach of"),
        (["--macs", "0.5", "--multiple", "4096"], "no channel of"),
        (["--params", "100000000"], "is within --params 100000000 as it is"),
        (["--latency-ms", "0"], "--latency-ms 0"),
    ],
)
def test_bad_goals_are_one_line(student: RunResult, options: Options, arguments: list[str], line: str) -> None:
    before = sorted(options.runs_dir.iterdir())
    result = CliRunner().invoke(
        app, ["prune", str(student.run), *arguments, "--runs", str(options.runs_dir), "--threads", "1"]
    )
    assert result.exit_code == 2
    (said,) = [each for each in result.stderr.splitlines() if each.startswith("error:")]
    assert line in said
    assert sorted(options.runs_dir.iterdir()) == before, "nothing was made"


@pytest.mark.parametrize(("multiple", "hint"), [(8, "--multiple 4"), (4, "--multiple 1"), (1, None)])
def test_finer_widths_are_offered_where_there_are_any(
    student: RunResult, options: Options, multiple: int, hint: str | None
) -> None:
    with pytest.raises(UsageError, match="is out of reach of") as caught:
        prune(student.run, macs=0.001, multiple=multiple, options=options)
    assert caught.value.hint == "let more stay" + (f", or allow other widths: {hint}" if hint else "")


def test_the_command_and_its_document(student: RunResult, options: Options) -> None:
    command = ["prune", str(student.run), "--macs", "0.7", "--criterion", "taylor", "--no-train", "--json", "-q"]
    result = CliRunner().invoke(app, [*command, "--runs", str(options.runs_dir), "--threads", "1", "--device", "cpu"])
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["criterion"] == "taylor"
    assert document["run"] is None
    assert open_run(document["cut"], runs_dir=options.runs_dir).status == "finished"
    assert document["after"]["gmacs"] <= 0.7 * document["before"]["gmacs"]
    table = CliRunner().invoke(app, ["prune", str(student.run), "--macs", "0.6", "--no-train", "--runs",
                                     str(options.runs_dir), "--threads", "1"])  # fmt: skip
    assert table.exit_code == 0, table.stderr
    assert "val top-1" in table.stdout
