"""``distill card`` on real runs and files: figures are those of compare, and the lines that load it work."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard
from typer.testing import CliRunner

import distill
from distill.cli import app
from distill.comparison import compare
from distill.pipeline import Options, RunResult, quantize, train_student


@pytest.fixture(scope="module")
def runs(teacher_run: RunResult, student_recipe: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("card") / "runs"
    for seed in (0, 1):
        taught = student_recipe("name=carded", "teacher.logits=live", f"train.seed={seed}", "train.epochs=2")
        train_student(taught, teacher=str(teacher_run.run), options=Options(runs_dir=root, threads=1))
    return root


def _card(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["card", *arguments, "--no-latency"])
    assert result.exit_code == 0, result.stderr
    return result.stdout


def test_a_name_is_all_its_seeds(runs: Path) -> None:
    text = _card("carded", "--runs", str(runs))
    (row,) = compare(["carded"], runs_dir=runs, latency=False).rows
    accuracy, *_ = ModelCard(text).data.eval_results
    assert accuracy.metric_value == row.test_top1
    assert row.seeds == 2
    assert f"± {100 * row.test_top1_std:.2f}" in text
    assert "distilled from tiny\\_teacher" in text
    assert "| latency | not measured |" in text
    teacher = row.test_top1 - row.delta_top1
    assert f"tiny\\_teacher, test top-1 {100 * teacher:.2f}%" in text
    assert f"--rerun {runs / 'carded' / '002'}" in text


def test_the_lines_that_load_it_do(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = quantize(runs / "carded" / "002", out=runs.parent / "exports" / "carded_int8.onnx", max_drop=0.9).file
    monkeypatch.chdir(file.parent)
    for reference in (str(runs / "carded" / "002"), str(file)):
        text = _card(reference, "--runs", str(runs))
        (code,) = re.findall(r"```python\n(.*?)\n```", text, re.DOTALL)
        names: dict[str, object] = {}
        exec(code, names)
        assert np.asarray(names["logits"]).shape == (1, 10)
    assert "carded\\_int8" in text
    assert {"onnx", "int8"} <= set(ModelCard(text).data.tags)
    fingerprint = json.loads((runs / "carded" / "002" / "run.json").read_text())["data"]["fingerprint"]
    assert f"| training images and split, sha256 | `{fingerprint}` |" in text
    (made,) = re.findall(r"\| quantised \| (.*) \|", text)
    assert made.endswith("training images set the ranges; at most 90.00 points of validation top-1 lost")


def test_it_is_written_where_nothing_of_yours_is(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "README.md"
    left = out.with_name(f".{out.name}.0123456789ab.partial")  # of a process that was killed long ago
    left.write_text("half")
    os.utime(left, (0, 0))
    assert _card("carded", "--runs", str(runs), "--out", str(out)) == f"{out}\n"
    assert not left.exists()
    assert _card("carded", "--runs", str(runs), "--out", str(out)) == f"{out}\n"
    out.write_text("mine")
    refused = CliRunner().invoke(app, ["card", "carded", "--runs", str(runs), "--out", str(out), "--no-latency"])
    assert refused.exit_code == 2
    assert out.read_text() == "mine"
    with pytest.raises(distill.DistillError, match="Markdown"):
        distill.write_card("carded", out=tmp_path / "card.txt", options=Options(runs_dir=runs))
