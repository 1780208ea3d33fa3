"""A finished run repeats byte for byte from what its folder says, and a run that cannot is told apart."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from distill.cli import app
from distill.files import write_json
from distill.pipeline import Options, RunResult, finetune_teacher, rerun, resume_run, train_student
from distill.runs import RunFolder, lock
from distill.runs.checkpoints import MODEL_FILE


def _again(run: Path, tmp_path: Path) -> tuple[str, ...]:
    return rerun(run, options=Options(runs_dir=tmp_path / "again")).differences


def test_a_students_run_repeats(train: Callable[..., RunResult], tmp_path: Path) -> None:
    first = train("augment.mixup={alpha: 0.3}", "train.ema=0.5", "teacher.logits=live")
    again = rerun(first.run, options=Options(runs_dir=tmp_path / "again"))
    assert again.differences == again.changed == ()
    assert again.original == first.run
    assert again.result.run.parent.parent == tmp_path / "again"
    for name in ("metrics.jsonl", f"checkpoints/best/{MODEL_FILE}", f"checkpoints/last/{MODEL_FILE}", "recipe.yaml"):
        assert (first.run / name).read_bytes() == (again.result.run / name).read_bytes(), name


def test_a_run_that_started_from_another_repeats(train: Callable[..., RunResult], tmp_path: Path) -> None:
    first = train("train.epochs=1", "train.seed=3")
    second = train("train.epochs=1", init_from=str(first.run))
    assert _again(second.run, tmp_path) == ()


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("metrics.jsonl", lambda text: text.replace(b'"epoch": 1,', b'"epoch": 1, "loss2": 1.0,')),
        (MODEL_FILE, lambda data: data[:-1] + bytes([data[-1] ^ 1])),
    ],
)
def test_what_differs_is_named(train, tmp_path: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    first = train("train.epochs=1")
    file = first.run / name if name == "metrics.jsonl" else first.run / "checkpoints" / "best" / name
    file.write_bytes(damage(file.read_bytes()))
    assert _again(first.run, tmp_path) == (name,)


def test_the_command_line_says_whether_it_matched_and_what_changed(train, tmp_path: Path) -> None:
    first = train("train.epochs=1")
    command = ["student", "--rerun", str(first.run), "--runs", str(tmp_path / "again")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert f"the same bytes as {first.run}" in done.stderr
    info = json.loads((first.run / "run.json").read_text())
    write_json(first.run / "run.json", info | {"versions": info["versions"] | {"torch": "1.0"}})
    (first.run / "metrics.jsonl").write_text('{"epoch": 1}\n')
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 0, done.output
    assert "metrics.jsonl differ; not as it was: torch (was 1.0, is " in done.stderr
    document = json.loads(done.stdout)
    assert document["differences"] == ["metrics.jsonl"]
    assert len(document["changed"]) == 1


def test_run_json_holds_what_it_takes(train: Callable[..., RunResult], teacher_run: RunResult) -> None:
    run = RunFolder(train("train.epochs=1").run)
    info = run.info
    assert info.threads == 1
    assert info.extra["device_type"] == "cpu"
    assert info.seeds == {"train": 0, "split": 0, "view": 0}
    assert {"python", "torch", "torchvision", "timm", "numpy", "distill"} <= info.versions.keys()
    assert len(info.data["fingerprint"]) == 64
    assert info.data["classes"] == list(run.classes)
    assert info.teacher["run"] == str(teacher_run.run)
    assert len(info.teacher["sha256"]) == 64
    assert {"teacher.logits", "train.precision"} <= info.choices.keys()
    assert info.started
    assert info.finished
    assert info.exit_code == 0


@pytest.mark.parametrize("link", [True, False])
def test_a_finished_run_says_its_result_again(teacher_recipe, tmp_path: Path, link: bool) -> None:
    options = Options(runs_dir=tmp_path / "runs", threads=1)
    done = finetune_teacher(teacher_recipe("train.epochs=1"), options=options)
    before = {path: path.read_bytes() for path in done.run.rglob("*") if path.is_file()}
    if not link:  # killed at the very last act
        (done.run.parent / "latest").unlink()
    assert resume_run(done.run, options=options) == done
    assert {path: path.read_bytes() for path in done.run.rglob("*") if path.is_file()} == before
    assert (done.run.parent / "latest").resolve() == done.run.resolve()


def test_a_finished_run_that_was_killed_at_its_last_act_is_cleared(teacher_recipe, tmp_path: Path) -> None:
    options = Options(runs_dir=tmp_path / "runs", threads=1)
    done = finetune_teacher(teacher_recipe("train.epochs=1"), options=options)
    before = sorted(done.run.rglob("*"))
    dead = {"pid": 4_000_000, "host": platform.node(), "boot": lock._boot_id(), "process_start": 1, "since": ""}
    (done.run / "lock.json").write_text(json.dumps(dead | {"token": "t"}))
    (done.run / ".result.json.0123456789ab.partial").write_text("half")
    assert resume_run(done.run, options=options) == done
    assert sorted(done.run.rglob("*")) == before


def test_a_copied_run_repeats_where_its_teacher_is_still_there(train, tmp_path: Path) -> None:
    first = train("train.epochs=1", "teacher.logits=live")
    shutil.copytree(first.run, tmp_path / "elsewhere" / "mine", symlinks=True)
    assert _again(tmp_path / "elsewhere" / "mine", tmp_path) == ()


def test_a_run_says_where_it_differs_from_the_last_of_its_name(student_recipe, tmp_path: Path) -> None:
    """By a name the newest run is meant: whoever changes a setting is told, whoever changes the seed is not."""
    told: list[str] = []
    options = Options(
        runs_dir=tmp_path / "runs", threads=1, on_event=lambda event: told.append(getattr(event, "message", ""))
    )
    plain = ("objective.kind=supervised", "train.epochs=1")
    for more in ((), ("train.seed=1",), ("optim.lr=0.25", "train.seed=2")):
        train_student(student_recipe(*plain, *more), options=options)
    before = student_recipe(*plain).optim.lr
    (line,) = [text for text in told if "its last run" in text]
    last = tmp_path / "runs" / "tiny_student" / "002"
    assert line.startswith(f"tiny_student: its last run, {last}, differs in optim.lr ({before},")
    assert "now 0.25)" in line
    assert line.endswith("--set name=NAME keeps them apart")
