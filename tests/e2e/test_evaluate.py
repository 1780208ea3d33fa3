"""``distill evaluate`` on a real run: against scikit-learn, by its contract, and what it leaves in the run's folder."""

from __future__ import annotations

import itertools
import json
import os
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from typer.testing import CliRunner, Result

from distill.cli import app
from distill.comparison import compare
from distill.data.splits import load_splits
from distill.errors import UsageError
from distill.models.trained import load_trained
from distill.pipeline import Options, RunResult, evaluate_runs, finetune_teacher
from distill.runs import RunFolder

CONTRACT = "run split top1 top5 macro_precision macro_recall macro_f1 nll ece per_class confusion"


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("COLUMNS", "120")
    return lambda *args: CliRunner().invoke(
        app, ["evaluate", *map(str, args), "--threads", "1"], catch_exceptions=False
    )


@pytest.mark.parametrize("split", ["test", "val"])
def test_the_document_agrees_with_scikit_learn(evaluate, teacher_run: RunResult, split: str) -> None:
    result = evaluate(teacher_run.run, "--split", split, "--json", "--quiet")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    document = json.loads(result.stdout)
    assert set(CONTRACT.split()) <= set(document)
    assert (document["run"], document["split"]) == (str(teacher_run.run), split)
    logits = np.load(teacher_run.run / "evaluation" / f"{split}_logits.npy")
    splits = load_splits(RunFolder(teacher_run.run).recipe().data)
    labels = (splits.test if split == "test" else splits.val).labels
    guesses = logits.argmax(1)
    assert document["top1"] == (guesses == labels).mean()
    assert document["confusion"] == confusion_matrix(labels, guesses, labels=range(10)).tolist()
    precision, recall, f1, count = precision_recall_fscore_support(labels, guesses, labels=range(10), zero_division=0)
    for place, entry in enumerate(document["per_class"]):
        assert entry["precision"] == pytest.approx(precision[place], abs=1e-6)
        assert entry["recall"] == pytest.approx(recall[place], abs=1e-6)
        assert entry["f1"] == pytest.approx(f1[place], abs=1e-6)
        assert entry["n"] == count[place]


def test_validation_is_what_training_reported(evaluate, teacher_run: RunResult) -> None:
    document = json.loads(evaluate(teacher_run.run, "--split", "val", "--json", "--no-plots").stdout)
    assert document["top1"] == pytest.approx(teacher_run.val_top1)


def test_tables_pictures_and_result_json(evaluate, train) -> None:
    run = train("teacher.logits=live").run
    result = evaluate(run)
    assert result.exit_code == 0
    assert "macro F1" in result.stdout
    assert "confusion: true class down" in result.stdout
    for name in ("confusion_test.svg", "classes_test.svg"):
        assert (run / "evaluation" / name).read_text().startswith("<?xml")
        assert f"wrote {run / 'evaluation' / name}" in result.stderr
    stored = json.loads((run / "result.json").read_text())
    assert stored["test_top1"] == json.loads((run / "evaluation" / "test.json").read_text())["result"]["top1"]
    assert stored["params"] > 0


def test_a_second_call_reads_what_the_first_one_found(evaluate, train, monkeypatch: pytest.MonkeyPatch) -> None:
    run = train("teacher.logits=live").run
    first = evaluate(run, "--json").stdout

    def asked_again(*args: object, **options: object) -> None:
        raise AssertionError("asked")

    monkeypatch.setattr("distill.evaluation.assess.assess_classifier", asked_again)
    assert evaluate(run, "--json").stdout == first
    with pytest.raises(AssertionError, match="asked"):
        evaluate(run, "--json", "--again")


def test_a_run_that_may_only_be_read_is_measured_and_left_as_it_was(
    evaluate, train, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train("teacher.logits=live").run
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    access = os.access
    monkeypatch.setattr(
        "os.access", lambda path, mode: not (mode == os.W_OK and Path(path).is_relative_to(run)) and access(path, mode)
    )
    read_only = evaluate(run, "--json", "--calibrated")
    assert f"warning: {run} may only be read: what is found is not kept, and not plotted" in read_only.stderr
    refused = evaluate(run, "--corruptions")
    assert (refused.exit_code, "measuring" in refused.stderr) == (2, False)
    compared = compare([run])
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    monkeypatch.undo()
    kept = json.loads(evaluate(run, "--json", "--calibrated").stdout)
    assert json.loads(read_only.stdout) == kept | {"plots": []}
    assert compared.rows[0].test_top1 == kept["top1"]
    assert (run / "evaluation" / "test.json").is_file()


def test_on_a_full_disk_it_is_measured_and_what_is_not_kept_is_told(evaluate, train) -> None:
    """Answers, temperature, figures and plots: each is told with the system's reason, and none ends the command."""
    run, notes = train("teacher.logits=live").run, []
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        compared = compare([run], latency=False, tell=notes.append)
        full = evaluate(run, "--json", "--calibrated")
        corrupted = CliRunner().invoke(app, ["evaluate", str(run), "--corruptions", "--corruption-images", "4"])
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        kept = json.loads(evaluate(run, "--json", "--calibrated", "--no-plots").stdout)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        filled = evaluate(run, "--json")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    told = f"cannot write {run / 'evaluation' / 'test_logits.npy'}: File too large; {run}: its answers are not kept"
    assert told in [note.message for note in notes if getattr(note, "level", "") == "warning"]
    assert (full.exit_code, filled.exit_code) == (0, 0)
    assert f"warning: {told}" in full.stderr
    assert f"{run}: its temperature is not kept" in full.stderr
    assert compared.rows[0].test_top1 == kept["top1"]
    assert json.loads(full.stdout) == kept
    assert f"{run}: its plots are not kept" in filled.stderr
    assert json.loads(filled.stdout)["top1"] == kept["top1"]
    assert corrupted.exit_code == 1  # these are measured for minutes, and read again from there
    assert "test_corruptions.json: File too large" in corrupted.stderr
    assert "free some space" in corrupted.stderr


def test_answers_of_images_that_cannot_be_looked_at_any_more_are_said_to_be_earlier_ones(
    evaluate, teacher_recipe, tmp_path: Path
) -> None:
    for split, number in itertools.product(("train", "test"), range(8)):
        (folder := tmp_path / "pets" / split / ("cat", "dog")[number % 2]).mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng([number, split == "test"]).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    data = f"data={{name: folder, root: '{tmp_path / 'pets'}', image_size: 8, val_fraction: 0.0}}"
    recipe = teacher_recipe(data, "train.epochs=1", "model={source: students, name: tiny}")
    run = finetune_teacher(recipe, options=Options(runs_dir=tmp_path, threads=1)).run
    first = evaluate(run, "--json", "--no-plots")
    assert "measuring" in first.stderr
    (tmp_path / "pets/test/cat/0.png").write_bytes(b"")
    again = evaluate(run, "--json", "--no-plots")
    assert again.stdout == first.stdout
    assert "measuring" not in again.stderr
    assert (
        f"warning: {run} answered its test images earlier; they cannot be looked at now: 1 of 16 images" in again.stderr
    )
    (tmp_path / "pets").rename(tmp_path / "elsewhere")
    gone = evaluate(run, "--json", "--no-plots")
    assert gone.stdout == first.stdout
    assert "they cannot be looked at now" in gone.stderr


def test_a_run_without_validation_says_so(evaluate, teacher_recipe, tmp_path: Path) -> None:
    recipe = teacher_recipe("data.val_fraction=0", "train.epochs=1")
    run = finetune_teacher(recipe, options=Options(runs_dir=tmp_path, threads=1)).run
    result = evaluate(run, "--split", "val")
    assert result.exit_code == 1
    assert "no validation images" in result.stderr


def test_nobody_and_damaged_weights_are_one_line(evaluate, train, tmp_path: Path) -> None:
    assert evaluate("nobody", "--runs", tmp_path).exit_code == 2
    run = train("teacher.logits=live").run
    weights = run / "checkpoints" / "best" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    result = evaluate(run)
    assert result.exit_code == 1
    assert result.stderr.count("error: ") == 1


@pytest.mark.pictures
def test_evaluating_draws_what_report_draws_again(evaluate, train, tmp_path: Path) -> None:
    run = train("teacher.logits=live").run
    evaluate(run, "--no-plots")
    assert not (run / "evaluation" / "confusion_test.svg").exists()
    result = CliRunner().invoke(app, ["report", str(run), "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    drawn = {Path(path).relative_to(run).as_posix() for path in json.loads(result.stdout)}
    assert drawn == {
        "plots/loss.svg",
        "plots/top1.svg",
        "plots/lr.svg",
        "evaluation/confusion_test.svg",
        "evaluation/classes_test.svg",
        "evaluation/reliability_test.svg",
        "evaluation/risk_coverage_test.svg",
    }
    assert all((run / name).is_file() for name in drawn)


def test_test_time_augmentation_is_the_mean_of_both_told_and_kept_nowhere(evaluate, train) -> None:
    run = train("teacher.logits=live", "objective.kd_weight=0.1").run
    plain = json.loads(evaluate(run, "--json", "--quiet").stdout)
    kept = {path: path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}
    mirrored = json.loads(evaluate(run, "--tta", "flip", "--json", "--quiet").stdout)
    assert (plain["tta"], mirrored["tta"]) == ("none", "flip")
    assert {path: path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()} == kept
    trained = load_trained(RunFolder(run), device=torch.device("cpu"))
    test = load_splits(RunFolder(run).recipe().data).test
    pixels = test.take(slice(None))
    both = [trained.logits(torch.from_numpy(np.ascontiguousarray(p))).numpy() for p in (pixels, pixels[..., ::-1])]
    mean = (both[0] + both[1]) / 2
    assert mirrored["top1"] == (mean.argmax(1) == test.labels).mean()
    shares = np.exp(mean - mean.max(1, keepdims=True))
    likelihood = shares[np.arange(len(mean)), test.labels] / shares.sum(1)
    assert mirrored["nll"] == pytest.approx(-np.log(likelihood).mean(), rel=1e-5)
    assert mirrored["nll"] != plain["nll"]
    told = evaluate(run, "--tta", "flip").stdout
    assert "flip: not the run's own figures" in told
    assert "test-time" not in evaluate(run).stdout


def test_no_run_is_nothing_to_evaluate() -> None:
    with pytest.raises(UsageError, match="no run to evaluate"):
        evaluate_runs([])


def test_a_figure_is_of_corruptions(teacher_run: RunResult, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a figure is of runs under corruptions"):
        evaluate_runs([teacher_run.run], figure=tmp_path / "x.svg")
