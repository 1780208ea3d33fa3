"""The commands of the mission on real CIFAR-10: a small timm backbone teaches, a student learns, compare says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from distill.cli import app

pytestmark = pytest.mark.slow

SHARED = """
data: {name: cifar10, root: ROOT, limit: 2000, test_limit: 1000}
augment: {crop_padding: 2, hflip: 0.5}
schedule: {kind: cosine, warmup_epochs: 1}
"""
TEACHER = """
name: backbone
role: teacher
model: {source: timm, name: test_resnet, stem: cifar, weights: none}
optim: {name: adamw, lr: 2e-3, weight_decay: 0.01}
train: {epochs: 6, batch_size: 64}
"""
STUDENT = """
name: taught
role: student
model: {source: students, name: resnet, blocks: [1, 1, 1], channels: [16, 32, 64], strides: [1, 2, 2]}
teacher: {run: backbone}
objective: {kind: kd, ce_weight: 0.5, kd_weight: 0.5, temperature: 4.0}
optim: {name: adamw, lr: 3e-3, weight_decay: 0.01}
train: {epochs: 8, batch_size: 64}
"""
CHANCE = 0.1


def _ok(*args: str) -> dict:
    result = CliRunner().invoke(app, [*args, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_both_learn(real_cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(real_cifar.resolve())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISTILL_RUNS", raising=False)
    for name, text in (("teacher", TEACHER), ("student", STUDENT)):
        Path(f"{name}.yaml").write_text(text + SHARED.replace("ROOT", root))
    teacher = _ok("teacher-finetune", "--recipe", "teacher.yaml")
    student = _ok("student", "--recipe", "student.yaml")
    assert (teacher["epochs"], student["epochs"]) == (6, 8)
    losses = [
        json.loads(line)["train_loss"] for line in (Path(student["run"]) / "metrics.jsonl").read_text().splitlines()
    ]
    assert losses[-1] < losses[0]
    rows = {row["name"]: row for row in _ok("compare")["rows"]}
    for row in rows.values():
        assert row["test_top1"] > 2.5 * CHANCE, row
    assert rows["taught"]["params"] == 78_042
    assert rows["taught"]["agreement"] > rows["taught"]["test_top1"] / 2
    assert rows["taught"]["latency_b1_ms"] < rows["backbone"]["latency_b1_ms"]
    table = CliRunner().invoke(app, ["compare", "--no-latency"], catch_exceptions=False).stdout
    assert "backbone" in table
    assert "taught" in table
