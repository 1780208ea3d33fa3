"""A whole recipe as a user writes it, on numbered lines that the tests refer to."""

from __future__ import annotations

from pathlib import Path

import pytest

STUDENT = """\
# a student, taught by a teacher                                          line 1
schema_version: 1
name: r18_small
role: student                                   # teacher | student | baseline
data: {name: cifar10, root: data, val_fraction: 0.1}
augment: {crop_padding: 4, hflip: 0.5, views: null}
model: {source: students, name: resnet, blocks: [1, 1], channels: [8, 16], strides: [1, 2], max_params: 5_000_000}
teacher: {run: resnet152_cifar10, logits: auto}
objective: {kind: kd, ce_weight: 0.1, kd_weight: 0.9, temperature: 4.0}
optim: {name: sgd, lr: 0.1, momentum: 0.9, nesterov: true, weight_decay: 5e-4}
schedule: {kind: cosine, warmup_epochs: 5}
train:
  epochs: 200
  batch_size: 128
  precision: auto
"""


@pytest.fixture
def student() -> str:
    return STUDENT


@pytest.fixture
def student_file(tmp_path: Path) -> Path:
    path = tmp_path / "student.yaml"
    path.write_text(STUDENT)
    return path
