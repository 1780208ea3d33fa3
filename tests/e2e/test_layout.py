"""The memory format that a run trains in: decided before a folder exists, told, recorded, refused where it is wrong."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from distill.cli import app
from distill.events import Event, Note
from distill.pipeline import Options, train_student
from distill.pipeline.context import prepare
from distill.recipe import Recipe, parse_recipe

TEXT = """
schema_version: 1
name: narrow
role: baseline
data: {name: synthetic, limit: 64, test_limit: 20}
model: {source: students, name: resnet, blocks: [1, 1], channels: [4, 8], strides: [2, 2]}
train: {epochs: 1, batch_size: 32}
"""
WIDE = "model.channels=[16, 16]"


def _recipe(*overrides: str) -> Recipe:
    return parse_recipe(TEXT, source="test", overrides=overrides)


def _prepared(runs: Path, *overrides: str) -> tuple[Recipe, dict, list[str]]:
    told: list[Event] = []
    context = prepare(_recipe(*overrides), Options(runs_dir=runs, device="cpu", on_event=told.append))
    return context.recipe, context.choices, [event.message for event in told if isinstance(event, Note)]


def _invoke(*args: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(arg) for arg in args])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stderr


def test_a_network_that_would_reach_a_wrong_kernel_trains_on_contiguous_images(tmp_path: Path) -> None:
    recipe, choices, told = _prepared(tmp_path)
    assert recipe.train.channels_last is False
    assert choices["train.channels_last"] is False
    (line,) = told
    assert line == f"images stay contiguous: {choices['train.channels_last_why']}"
    assert "stages.0.0.skip.0 (1x1, stride 2, 4 input channels) and 1 more" in line
    assert "oneDNN/issues/6035" in line


def test_a_safe_network_keeps_channels_last(tmp_path: Path) -> None:
    recipe, choices, told = _prepared(tmp_path, WIDE, "train.channels_last=true")
    assert (recipe.train.channels_last, told) == (True, [])
    assert "train.channels_last" not in choices


def test_compiling_such_a_network_says_what_it_leaves_out(tmp_path: Path) -> None:
    _, _, told = _prepared(tmp_path, "train.compile=true")
    assert told[0].startswith("images stay contiguous, compiled without inductor's layout optimization: layer")


def test_asking_for_channels_last_there_is_refused_before_a_folder_exists(tmp_path: Path) -> None:
    source = tmp_path / "narrow.yaml"
    source.write_text(TEXT)
    code, said = _invoke(
        "student", "--recipe", source, "--runs", tmp_path / "runs", "--device", "cpu", "-s", "train.channels_last=true"
    )
    assert code == 2
    error, hint = said.strip().splitlines()
    assert error.startswith("error: train.channels_last: true cannot be had on a CPU: layer stages.0.0.skip.0 (")
    assert "--set train.channels_last=auto" in hint
    assert not (tmp_path / "runs").exists()


def test_a_run_that_began_so_is_told_to_start_anew(tmp_path: Path) -> None:
    """What an earlier version wrote: channels_last resolved to true, and half its epochs trained."""
    options = Options(runs_dir=tmp_path, device="cpu", threads=1)
    run = train_student(_recipe(), options=options).run
    recipe, info = run / "recipe.yaml", run / "run.json"
    recipe.write_text(recipe.read_text().replace("channels_last: false", "channels_last: true"))
    info.write_text(json.dumps(json.loads(info.read_text()) | {"status": "interrupted"}))
    code, said = _invoke("student", "--resume", run)
    assert code == 2
    assert "learned from wrong gradients: train it anew from that file" in said
    again = ("student", "--recipe", recipe, "--runs", tmp_path, "--device", "cpu", "-s", "train.channels_last=auto")
    assert _invoke(*again)[0] == 0
