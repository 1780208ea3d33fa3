"""What installed packages offer by name: no leave is needed, and a broken one is a line where it is asked for, only."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from distill.cli import app
from distill.runs import RunFolder

MODULE = """
import numpy as np
import torch.nn.functional as F
from torch import nn


def net(num_classes, width=6):
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), *head)


def images(count=60):
    draw = np.random.default_rng(0)
    return draw.integers(0, 256, (count, 12, 12, 3), dtype=np.uint8), np.arange(count) % 3


def smooth(student, labels):
    return F.cross_entropy(student, labels, label_smoothing=0.2, reduction="none")
"""
ENTRY_POINTS = """
[distill.students]
small-net = plugged_nets:net
broken-net = plugged_broken:net
twice = plugged_nets:net

[distill.teachers]
twice = plugged_nets:images

[distill.data]
noise = plugged_nets:images

[distill.objectives]
smooth = plugged_nets:smooth
gone = plugged_nets:absent
"""
RECIPE = """
schema_version: 1
name: plugged
role: baseline
data: {name: python, code: noise, image_size: 12, options: {count: 45}}
model: {source: python, name: small-net, input_size: 12}
objective: {kind: python_labels, name: smooth}
train: {epochs: 1, batch_size: 16}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_leave: None) -> Iterator[Path]:
    """A folder of installed packages on Python's path: a module, and the dist-info that pip writes."""
    site = tmp_path / "site"
    (info := site / "plugged_nets-1.2.dist-info").mkdir(parents=True)
    (site / "plugged_nets.py").write_text(MODULE)
    (site / "plugged_broken.py").write_text("import no_such_module\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged-nets\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(site))
    (work := tmp_path / "work").mkdir()
    (work / "plugged.yaml").write_text(RECIPE)
    monkeypatch.chdir(work)
    yield work
    for name in ("plugged_nets", "plugged_broken"):
        sys.modules.pop(name, None)


def _distill(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_what_a_package_offers_needs_no_leave(here: Path) -> None:
    exit_code, _, stderr = _distill("student", "--recipe", "plugged.yaml", "-q")
    assert exit_code == 0, stderr
    run = RunFolder(here / "runs" / "plugged" / "001")
    assert run.figures().params == 3 * 6 * 9 + 6 + 6 * 3 + 3
    assert run.info.data["train"] + run.info.data["val"] < 45
    assert "train_own" in (run.path / "metrics.jsonl").read_text()
    assert _distill("evaluate", "plugged", "-q")[0] == 0


def test_it_is_listed_with_its_origin_and_nothing_of_it_is_imported(here: Path) -> None:
    exit_code, stdout, _ = _distill("models", "--json")
    assert exit_code == 0
    listed = {(row["role"], row["name"]) for row in json.loads(stdout) if row["origin"] == "plugged-nets 1.2"}
    assert listed >= {("student", "small-net"), ("student", "broken-net"), ("data", "noise"), ("objective", "smooth")}
    assert "small-net: student, of plugged-nets 1.2" in _distill("models")[1]
    assert not {"plugged_nets", "plugged_broken"} & set(sys.modules)


@pytest.mark.parametrize(
    ("change", "exit_code", "told"),
    [
        ("model.name=broken-net", 4, "broken-net of plugged-nets 1.2 cannot be imported: ModuleNotFoundError"),
        ("objective.name=gone", 4, "gone of plugged-nets 1.2 cannot be imported"),
        ("model.name=absent-net", 4, "no installed package offers absent-net (distill.students, distill.teachers)"),
        ("model.name=twice", 2, "several packages offer twice"),
    ],
)
def test_what_is_wrong_is_one_line(change: str, exit_code: int, told: str, here: Path) -> None:
    found, _, stderr = _distill("student", "--recipe", "plugged.yaml", "-q", "--set", change)
    assert (found, told in stderr) == (exit_code, True), stderr
    assert "Traceback" not in stderr
    assert _distill("recipe", "list")[0] == 0
