"""Objectives from a recipe, end to end, on tiny networks."""

from __future__ import annotations

import json

import pytest

from distill import Options, finetune_teacher, train_student
from distill.recipe import parse_recipe

RECIPE = """
schema_version: 1
name: {name}
role: {role}
data: {{name: synthetic, image_size: 16, limit: 96, test_limit: 20}}
augment: {{crop_padding: 2, hflip: 0.5{augment}}}
model: {{source: {source}, name: tiny, width: {width}, input_size: 16}}
optim: {{name: sgd, lr: 0.05}}
train: {{epochs: {epochs}, batch_size: 16{train}}}
{rest}
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def teacher(runs):
    text = RECIPE.format(
        name="teacher", role="teacher", source="teachers", width=8, epochs=2, rest="", augment="", train=""
    )
    return finetune_teacher(parse_recipe(text, source="test"), options=Options(runs_dir=runs, device="cpu")).run


def student(runs, teacher, objective, *, name="student", logits="bank", epochs=2, augment="", train=""):
    rest = f"teacher: {{run: {teacher}, logits: {logits}}}\nobjective: {objective}"
    text = RECIPE.format(
        name=name, role="student", source="students", width=4, epochs=epochs, rest=rest, augment=augment, train=train
    )
    return train_student(parse_recipe(text, source="test"), options=Options(runs_dir=runs, device="cpu")).run


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("objective", "parts"),
    [
        ("{kind: dkd, ramp_epochs: 2}", {"tckd", "nckd"}),
        ("{kind: dist}", {"inter", "intra"}),
        ("{kind: mse}", {"mse"}),
        ("{kind: kd, standardize: true, add: [{kind: dist}, {kind: mse}]}", {"kd", "inter", "intra", "mse"}),
    ],
)
def test_objectives_on_logits_train_with_mixup_ema_and_accumulation(runs, teacher, objective, parts):
    run = student(runs, teacher, objective, augment=", mixup: {alpha: 0.4}", train=", ema: 0.9, accumulate: 2")
    for epoch in metrics(run):
        assert {f"train_{part}" for part in parts | {"ce", "loss", "top1"}} <= epoch.keys()


def test_a_term_that_has_ended_is_told_no_more(runs, teacher):
    run = student(runs, teacher, "{kind: kd, add: [{kind: mse, until_epoch: 1}]}")
    first, second = metrics(run)
    assert "train_mse" in first
    assert "train_mse" not in second
    assert "train_kd" in second
