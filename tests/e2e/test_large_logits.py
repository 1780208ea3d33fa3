"""Logits that 16 bits cannot hold: told for what they are, and never stored as infinity."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import distill.pipeline.source
from distill.errors import RunError
from distill.files import sha256_file
from distill.models.trained import Trained
from distill.pipeline import Options, RunResult, build_bank, list_banks, train_student, verify_banks
from distill.runs import RunFolder
from distill.runs.checkpoints import best_checkpoint, load_checkpoint, save_checkpoint, set_link
from distill.teaching.bank import Bank
from distill.teaching.identity import read_statement
from distill.teaching.live import LiveTeacher
from distill.teaching.rounding import check_logits, round_logits, suited_dtype


@pytest.fixture
def teacher(teacher_run: RunResult, tmp_path: Path) -> Callable[[float], RunFolder]:
    """``teacher(1e6)``: a copy of the tiny teacher whose logits are a million times as large."""

    def make(factor: float) -> RunFolder:
        run = RunFolder(tmp_path / "runs" / "tiny_teacher" / "001")
        shutil.copytree(teacher_run.run, run.path, symlinks=True, ignore=shutil.ignore_patterns("banks"))
        best = load_checkpoint(best_checkpoint(run.checkpoints))
        state = {key: value * factor if key.startswith("head.") else value for key, value in best.model_state.items()}
        assert any(key.startswith("head.") for key in state)
        set_link(
            run.checkpoints,
            "best",
            save_checkpoint(run.checkpoints, epoch=99, step=0, model_state=state, resume_state={}, meta={}),
        )
        return run

    return make


@pytest.fixture
def learn(student_recipe, tmp_path: Path) -> Callable[..., RunFolder]:
    def run(teacher: RunFolder, *overrides: str) -> RunFolder:
        options = Options(runs_dir=tmp_path / "students", threads=1)
        recipe = student_recipe("train.epochs=1", *overrides)
        return RunFolder(train_student(recipe, teacher=str(teacher.path), options=options).run)

    return run


def _weights(run: RunFolder) -> bytes:
    return (run.checkpoints / "last" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("logits", ["live", "bank"])
def test_logits_beyond_float16_are_the_teachers_and_the_hint_helps(teacher, learn, logits: str) -> None:
    run = teacher(1e6)
    with pytest.raises(RunError) as caught:
        learn(run, f"teacher.logits={logits}", "teacher.logits_dtype=float16")
    assert caught.value.message.startswith(f"the teacher {run} answers logits of up to ")
    assert caught.value.message.endswith("and float16 ends at 65,504")
    assert caught.value.hint == "--set teacher.logits_dtype=float32, or auto"
    for info in run.path.glob("banks/*/bank.json"):
        assert Bank.open(info.parent).info.views == 0
    learn(run, f"teacher.logits={logits}", "teacher.logits_dtype=float32", "optim.lr=1e-9")


@pytest.mark.parametrize(("factor", "dtype"), [(1.0, "float16"), (1e6, "float32")])
def test_auto_takes_float32_where_it_must_and_bank_and_live_agree(teacher, learn, factor: float, dtype: str) -> None:
    run = teacher(factor)
    live, bank = (learn(run, f"teacher.logits={how}", "optim.lr=1e-9") for how in ("live", "bank"))
    for each in (live, bank):
        assert each.recipe().teacher.logits_dtype == each.info.choices["teacher.logits_dtype"] == dtype
    assert Bank.open(Path(bank.info.teacher["bank"])).info.key.dtype == dtype
    assert _weights(live) == _weights(bank)
    assert suited_dtype(read_statement(run).largest_logit) == dtype


def test_auto_reads_a_named_bank_as_it_is(teacher, learn, student_recipe, tmp_path: Path) -> None:
    run, options = teacher(1.0), Options(runs_dir=tmp_path / "far", threads=1)
    recipe = student_recipe("train.epochs=1", "teacher.logits_dtype=float32")
    bank = build_bank(recipe, teacher=str(run.path), path=tmp_path / "bank", options=options).path
    far = train_student(student_recipe("train.epochs=1", f"teacher={{bank: '{bank}'}}"), options=options)
    assert RunFolder(far.run).recipe().teacher.logits_dtype == "float32"


def test_a_gpu_that_is_not_waited_for_at_every_step_blames_the_teacher_too(
    teacher, learn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if its device were another: then nothing is looked at before the loss is not finite."""

    class Elsewhere(LiveTeacher):
        def __init__(self, teacher: Trained, **options: object) -> None:
            super().__init__(replace(teacher, device=torch.device("cuda")), **options)

    monkeypatch.setattr(distill.pipeline.source, "LiveTeacher", Elsewhere)
    run = teacher(1e6)
    with pytest.raises(RunError, match="float16 ends at 65,504"):
        learn(run, "teacher.logits=live", "teacher.logits_dtype=float16")


def test_a_teacher_that_diverged_is_told(teacher, learn) -> None:
    run = teacher(float("nan"))
    with pytest.raises(RunError, match=r"the logits of the teacher .* are NaN or infinite"):
        learn(run)


def test_the_limit_is_float16s_own() -> None:
    last = float(np.nextafter(np.float32(65_520), np.float32(0)))
    check_logits(last, teacher="t", dtype="float16")
    assert round_logits(torch.tensor([last]), "float16").item() == 65_504
    with pytest.raises(RunError):
        check_logits(65_520.0, teacher="t", dtype="float16")
    assert round_logits(torch.tensor([65_520.0]), "float16").isinf()
    check_logits(65_520.0, teacher="t", dtype="float32")


@pytest.mark.parametrize("row", [0, 1])
def test_a_bank_that_holds_infinity_is_not_ok(teacher, student_recipe, tmp_path: Path, row: int) -> None:
    """As banks of a teacher that overflowed did, their checksums in order."""
    recipe, options = student_recipe("train.epochs=2"), Options(runs_dir=tmp_path / "far", threads=1)
    bank = Bank.open(Path(build_bank(recipe, teacher=str(teacher(1.0).path), options=options).path))
    name = f"views/{row:05d}-000.npy"
    values = np.load(bank.path / name)
    values[3, 1] = np.inf
    np.save(bank.path / name, values)
    bank.info = replace(bank.info, checksums=bank.info.checksums | {name: sha256_file(bank.path / name)})
    bank._write_info()
    (verified,) = verify_banks([bank.path], options=Options(device="cpu", threads=1))
    assert (verified.status, verified.damaged) == (f"damaged: not finite: {name}", (name,))
    (listed,) = list_banks([bank.path])
    assert listed.status == (verified.status if row == 0 else "ok")  # of all views one is read
