"""A temperature from fitting to use: ``evaluate``, ``predict`` and ``export`` with ``--calibrated``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from typer.testing import CliRunner, Result

import distill.evaluation.assess
from distill.cli import app
from distill.data.images import Split
from distill.data.splits import Splits, load_splits
from distill.evaluation.stored import read_evaluation
from distill.models.onnx_open import open_onnx
from distill.models.trained import load_trained
from distill.pipeline import Options, RunResult, export, finetune_teacher
from distill.recipe.schema import DataSpec
from distill.runs import RunFolder


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("COLUMNS", "140")
    return lambda *args: CliRunner().invoke(app, [*map(str, args), "--threads", "1"], catch_exceptions=False)


@pytest.fixture(scope="module")
def run(teacher_run: RunResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tiny teacher: what is stored beside it is this file's alone."""
    import shutil

    return Path(shutil.copytree(teacher_run.run, tmp_path_factory.mktemp("runs") / "tiny_teacher" / "001"))


def _by_hand(run: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels, asked in one batch."""
    trained = load_trained(RunFolder(run), device=torch.device("cpu"))
    splits = load_splits(trained.recipe.data)
    part = splits.test if split == "test" else splits.val
    return trained(torch.from_numpy(part.take(slice(None)))).double().numpy(), np.asarray(part.labels)


def _best(run: Path) -> float:
    logits, labels = _by_hand(run, "val")
    return minimize_scalar(
        lambda t: -log_softmax(logits / t, axis=1)[np.arange(len(labels)), labels].mean(),
        bounds=(0.05, 20),
        method="bounded",
        options={"xatol": 1e-9},
    ).x


def test_evaluate_fits_on_validation_tells_and_keeps_it(cli, run: Path) -> None:
    before = json.loads(cli("evaluate", run, "--json", "--quiet", "--no-plots").stdout)
    assert (before["temperature"], before["calibrated"]) == (None, None)
    result = cli("evaluate", run, "--calibrated", "--json", "--quiet")
    assert (result.exit_code, result.stderr) == (0, "")
    document = json.loads(result.stdout)
    temperature = document["temperature"]["value"]
    assert temperature == pytest.approx(_best(run), rel=1e-4)
    assert document["temperature"]["n"] == len(_by_hand(run, "val")[1])
    logits, labels = _by_hand(run, "test")
    shares = softmax(logits / temperature, axis=1)
    assert document["calibrated"]["nll"] == pytest.approx(-np.log(shares[np.arange(60), labels]).mean(), rel=1e-5)
    assert document["calibrated"]["confidence"] == pytest.approx(shares.max(1).mean(), rel=1e-5)
    assert {name: document[name] for name in ("top1", "ece", "reliability")} == {
        name: before[name] for name in ("top1", "ece", "reliability")
    }
    stored = read_evaluation(run / "evaluation")
    assert stored is not None
    assert stored.temperature is not None
    assert stored.calibrated is not None
    assert (stored.temperature.value, stored.calibrated.ece) == (temperature, document["calibrated"]["ece"])
    assert "fitting" not in cli("evaluate", run, "--calibrated", "--no-plots").stderr
    again = cli("evaluate", run, "--calibrated", "--again", "--no-plots").stderr
    assert "fitting a temperature on the validation images" in " ".join(again.split())
    told = cli("evaluate", run, "--no-plots").stdout  # known from now on
    assert f"{temperature:.4g}, fitted on 15 validation images" in told
    assert (run / "evaluation" / "reliability_test.svg").is_file()


@pytest.fixture
def pictures(run: Path, tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    for number, pixels in enumerate(load_splits(RunFolder(run).recipe().data).test.take(np.arange(5))):
        Image.fromarray(pixels.transpose(1, 2, 0)).save(tmp_path / "pictures" / f"{number}.png")
    return tmp_path / "pictures"


def _top(result: Result) -> list[float]:
    assert result.exit_code == 0, result.stderr
    return [each["top"][0]["probability"] for each in json.loads(result.stdout)]


def test_predict_divides_by_it_and_export_writes_it_into_the_file(
    cli, run: Path, pictures: Path, tmp_path: Path
) -> None:
    logits = _by_hand(run, "test")[0][:5]
    plain, calibrated = (softmax(logits / t, axis=1).max(1) for t in (1.0, _best(run)))
    assert np.abs(plain - calibrated).max() > 0.01
    assert _top(cli("predict", run, pictures, "--json", "-q")) == pytest.approx(plain, rel=1e-4)
    result = cli("predict", run, pictures, "--json", "--calibrated")
    assert _top(result) == pytest.approx(calibrated, rel=1e-3)
    assert "fitted on 15 validation images" in result.stderr

    made = export(run, out=tmp_path / "calibrated.onnx", calibrated=True)
    as_it_is = export(run, out=tmp_path / "plain.onnx")
    assert made.temperature == pytest.approx(_best(run), rel=1e-4)
    assert (as_it_is.temperature, open_onnx(as_it_is.file).about.temperature) == (None, None)
    assert open_onnx(made.file).about.temperature == made.temperature
    for flags in ((), ("--calibrated",)):  # what is in the file is not done twice
        assert _top(cli("predict", made.file, pictures, "--json", "-q", *flags)) == pytest.approx(calibrated, rel=1e-3)
    assert _top(cli("predict", as_it_is.file, pictures, "--json", "-q")) == pytest.approx(plain, rel=1e-3)
    result = cli("predict", as_it_is.file, pictures, "--json", "-q", "--calibrated")  # fitted to the file's own answers
    assert _top(result) == pytest.approx(calibrated, rel=1e-3)

    program = export(run, to="torch", out=tmp_path / "calibrated.pt2", calibrated=True)
    pixels = torch.from_numpy(load_splits(RunFolder(run).recipe().data).test.take(np.arange(5)))
    answered = torch.export.load(program.file).module()(pixels).numpy()
    assert softmax(answered, axis=1).max(1) == pytest.approx(calibrated, rel=1e-3)


def test_other_validation_images_are_fitted_anew(cli, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("evaluate", run, "--calibrated").exit_code == 0

    def others(spec: DataSpec, tell: object = None) -> Splits:
        splits = load_splits(spec)
        return replace(splits, val=Split(255 - splits.val.take(slice(None)), splits.val.labels))

    monkeypatch.setattr(distill.evaluation.assess, "load_splits", others)
    plain = json.loads(cli("evaluate", run, "--json").stdout)
    assert plain["temperature"] is None  # what is stored is of other images
    again = cli("evaluate", run, "--calibrated", "--json")
    assert "fitting a temperature on the validation images" in " ".join(again.stderr.split())
    assert json.loads(again.stdout)["temperature"]["value"] != pytest.approx(_best(run), rel=1e-3)
    monkeypatch.undo()
    assert cli("evaluate", run, "--calibrated").exit_code == 0  # as it was, for the tests after this one


def test_export_says_so(cli, run: Path, tmp_path: Path) -> None:
    result = cli("export", run, "--out", tmp_path / "a.onnx", "--calibrated")
    assert result.exit_code == 0
    assert "logits divided by" in result.stdout


def test_without_validation_it_is_refused_in_one_line(cli, teacher_recipe, tmp_path: Path) -> None:
    recipe = teacher_recipe("data.val_fraction=0", "train.epochs=1")
    run = finetune_teacher(recipe, options=Options(runs_dir=tmp_path, threads=1)).run
    picture = tmp_path / "a.png"
    Image.new("RGB", (32, 32)).save(picture)
    for args in (("evaluate", run), ("predict", run, picture), ("export", run, "--out", tmp_path / "a.onnx")):
        result = cli(*args, "--calibrated", "--quiet")
        assert result.exit_code == 1
        assert result.stderr.count("error: ") == 1
        assert "no validation images to fit a temperature on (data.val_fraction: 0)" in result.stderr
        assert "hint:" in result.stderr
    assert not (tmp_path / "a.onnx").exists()


def test_test_time_augmentation_is_kept_apart(cli, run: Path) -> None:
    for flag in ("--calibrated", "--corruptions"):
        result = cli("evaluate", run, "--tta", "flip", flag)
        assert result.exit_code == 2
        assert "kept apart" in result.stderr


def test_several_under_corruptions_are_one_figure(cli, run: Path, train, tmp_path: Path) -> None:
    student = train("teacher.logits=live").run
    figure = tmp_path / "both.svg"
    args = ("evaluate", run, student, "--corruptions", "--corruption-images", 30, "--figure", figure)
    result = cli(*args)
    assert result.exit_code == 0, result.stderr
    for words in ("tiny_teacher", "tiny_student", "motion blur", "against tiny_teacher under corruptions"):
        assert words in result.stdout
    drawn = figure.read_bytes()
    assert b"Drawn by distill" in drawn
    document = json.loads(cli(*args, "--json", "-q").stdout)
    assert [each["run"] for each in document["runs"]] == [str(run), str(student)]
    means = [each["corruptions"]["mean_top1"] for each in document["runs"]]
    (held,) = document["against"]
    assert (held["run"], held["against"]) == (str(student), str(run))
    assert held["difference"] == pytest.approx(means[1] - means[0])
    assert held["low"] <= held["difference"] <= held["high"]
    assert (document["figure"], figure.read_bytes()) == (str(figure), drawn)  # the same bytes again
    assert document["notes"] == []
    for each in (run, student):
        stored = read_evaluation(each / "evaluation")
        assert stored is not None
        assert stored.corruptions is not None
        assert (each / "evaluation" / "corruptions_test.svg").is_file()


def test_one_of_other_images_is_not_held_against_the_first(cli, run: Path, train, tmp_path: Path) -> None:
    other = train("teacher.logits=live", "data.test_limit=12").run
    figure = tmp_path / "one.svg"
    args = ("evaluate", run, other, "--corruptions", "--corruption-images", 10, "--no-plots", "--figure", figure)
    result = cli(*args, "--json", "-q")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["against"] == []
    assert [f"{other} is not held against {run}" in note for note in document["notes"]] == [True, False]
    assert "different images" in cli(*args).stdout
    assert b"tiny_student" not in figure.read_bytes()


def test_one_run_says_what_corruptions_leave(cli, run: Path) -> None:
    result = cli("evaluate", run, "--corruptions", "--corruption-images", 30, "--no-plots")
    assert result.exit_code == 0
    assert "top-1 under corruptions, by severity" in result.stdout
    assert "on 30 images" in result.stdout
    assert cli("evaluate", run, "--corruptions", "--corruption-images", 1).exit_code == 2
