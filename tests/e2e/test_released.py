"""Networks that come trained: made of a run, asked for by name, and what came with this checkout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from benchmarks.release import release
from distill.cli import app
from distill.errors import RunError
from distill.models.trained import load_trained
from distill.pipeline import Options, train_student
from distill.recipe import Recipe
from distill.runs import open_run, released
from distill.runs.released import released_networks

CPU = torch.device("cpu")


@pytest.fixture
def made(train: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny student that comes with distill, in place of those that do; the folder of its run."""
    run = train("train.epochs=1").run
    out = tmp_path / "released"
    terms = tmp_path / "terms.txt"
    terms.write_text("Terms of a test.")
    release(open_run(run), out, notice="Trained for a test.", licence=terms)
    monkeypatch.setattr(released, "RELEASED", out)
    return Path(run)


def test_it_answers_as_its_run_with_weights_of_half_precision(made: Path, tmp_path: Path) -> None:
    found = open_run("tiny_student", runs_dir=tmp_path / "empty")
    assert found.path == tmp_path / "empty" / "tiny_student" / "001"
    ours, whole = (load_trained(run, device=CPU, precision="fp32") for run in (found, open_run(made)))
    expected = whole.module.state_dict()
    for name, each in ours.module.state_dict().items():
        rounded = expected[name].half().to(expected[name].dtype) if each.is_floating_point() else expected[name]
        assert torch.equal(each, rounded), name
    side = ours.image_size
    pixels = torch.randint(0, 256, (32, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(ours.logits(pixels), whole.logits(pixels), atol=0.02)


def test_it_is_half_as_large_and_says_what_it_is(made: Path, tmp_path: Path) -> None:
    folder = released.RELEASED / "tiny_student"
    weights = load_file(folder / "model.safetensors")
    assert {each.dtype for each in weights.values() if each.is_floating_point()} == {torch.float16}
    text = "".join(path.read_text() for path in folder.iterdir() if path.suffix != ".safetensors")
    assert "Trained for a test." in text
    assert str(tmp_path.parent.parent) not in text  # the teacher's run is in another folder of tests
    result = json.loads((folder / "result.json").read_text())
    assert f"{result['test_top1']:.2%}" in (folder / "NOTICE.md").read_text()
    assert (open_run("tiny_student", runs_dir=tmp_path / "empty").path / "LICENSE").read_text() == "Terms of a test."


@pytest.mark.parametrize("logits", ["live", "bank"])
def test_it_teaches(logits: str, made: Path, student_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    options = Options(runs_dir=tmp_path / "empty", threads=1)
    recipe = student_recipe("train.epochs=1", f"teacher.logits={logits}")
    assert train_student(recipe, teacher="tiny_student", options=options).status == "finished"
    assert (tmp_path / "empty" / "tiny_student" / "001" / "NOTICE.md").is_file()


def test_a_run_of_ones_own_goes_first(made: Path, tmp_path: Path) -> None:
    assert open_run("tiny_student", runs_dir=tmp_path / "runs").path == made


def test_damaged_weights_are_one_line(made: Path, tmp_path: Path) -> None:
    path = released.RELEASED / "tiny_student" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    run = open_run("tiny_student", runs_dir=tmp_path / "empty")
    with pytest.raises(RunError, match=r"model\.safetensors: damaged"):
        load_trained(run, device=CPU)


def test_what_cannot_be_copied_leaves_nothing(made: Path, tmp_path: Path) -> None:
    (released.RELEASED / "tiny_student" / "result.json").unlink()
    with pytest.raises(RunError, match=r"result\.json: missing"):
        open_run("tiny_student", runs_dir=tmp_path / "empty")
    assert not (tmp_path / "empty").exists()


def test_a_run_is_resumed_and_a_number_is_opened_as_before(made: Path, tmp_path: Path) -> None:
    for name, finished in (("tiny_student/001", True), ("tiny_student", False)):
        with pytest.raises(RunError, match="no run"):
            open_run(name, runs_dir=tmp_path / "empty", finished=finished)


# What comes with this checkout


def _of_this_checkout() -> list[str]:
    return sorted(released_networks())


@pytest.mark.parametrize("name", _of_this_checkout())
def test_it_classifies_a_picture_of_ones_own(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)).save("my.png")
    done = CliRunner().invoke(app, ["predict", name, "my.png", "--json"])
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert "my.png" in json.dumps(document)
    run = open_run(name, runs_dir=tmp_path / "runs")
    assert len(run.classes) in (10, 100)
    assert run.info.extra["params"] < 5_000_000


@pytest.mark.parametrize("name", _of_this_checkout())
def test_it_is_small_and_its_notice_names_its_figure(name: str) -> None:
    folder = released_networks()[name]
    params = json.loads((folder / "result.json").read_text())["params"]
    assert (folder / "model.safetensors").stat().st_size < 2.1 * params < 10.5e6  # two bytes each, and batch norm's
    result = json.loads((folder / "result.json").read_text())
    notice = (folder / "NOTICE.md").read_text()
    assert f"{result['test_top1']:.2%}" in notice
    assert "CIFAR" in notice
