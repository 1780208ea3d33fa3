"""``distill quantize``: an int8 file that lost no more than it may, or none."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from distill.cli import app
from distill.data.splits import load_splits
from distill.errors import UsageError
from distill.models.onnx_open import open_onnx
from distill.models.trained import load_trained
from distill.pipeline import RunResult, quantize
from distill.runs import open_run


def _cli(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


def test_the_file_and_its_document(teacher_run: RunResult, tmp_path: Path) -> None:
    out = tmp_path / "teacher_int8.onnx"
    code, stdout, stderr = _cli(
        "quantize", str(teacher_run.run), "--max-drop", "0.1", "--out", str(out), "--json", "-q"
    )
    assert code == 0, stderr
    document = json.loads(stdout)
    kept = [each for each in document["attempts"] if each["kept"]]
    assert [each["scheme"] for each in kept] == [document["scheme"]]
    passing = [each for each in document["attempts"] if each["latency_b1_ms"] is not None]
    assert min(passing, key=lambda each: each["latency_b1_ms"])["kept"]

    trained = load_trained(open_run(teacher_run.run, runs_dir=Path("runs")), device=torch.device("cpu"))
    val = load_splits(trained.recipe.data).val
    pixels = torch.from_numpy(val.take(slice(None)))
    answers, reference = open_onnx(out).logits(pixels).numpy(), trained(pixels).numpy()
    lost = (reference.argmax(1) == val.labels).mean() - (answers.argmax(1) == val.labels).mean()
    assert kept[0]["drop"]["estimate"] == pytest.approx(lost)
    assert kept[0]["drop"]["images"] == len(val.labels)
    assert document["split"] == "val"
    assert open_onnx(out).runtime == "onnxruntime int8"


def test_what_loses_too_much_is_exit_code_3_and_no_file(
    teacher_run: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def useless(model: object, images: np.ndarray, scheme: object) -> object:
        made = type(model)()
        made.CopyFrom(model)
        for tensor in made.graph.initializer:
            if len(tensor.dims) == 4 and tensor.dims[1] == 3:  # a blind first layer
                tensor.raw_data = bytes(len(tensor.raw_data))
        return made

    monkeypatch.setattr("distill.compression.choose.quantize_model", useless)
    code, _, stderr = _cli("quantize", str(teacher_run.run), "--out", str(tmp_path / "a.onnx"), "-q")
    assert code == 3
    assert "no file was written" in stderr
    assert not list(tmp_path.iterdir())


def test_to_prove_it_takes_more_images_than_these(teacher_run: RunResult, tmp_path: Path) -> None:
    out = str(tmp_path / "a.onnx")
    code, _, stderr = _cli("quantize", str(teacher_run.run), "--max-drop", "0.05", "--prove", "--out", out, "-q")
    assert code == 3  # 15 validation images prove nothing
    assert "shown to lose at most 5 points" in stderr


def test_calibration_reads_training_images_alone(
    teacher_run: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    plain = sys.modules["distill.pipeline.quantize"].choose_int8

    def watched(model: object, calibration: np.ndarray, judged: object, **options: object) -> object:
        seen.append((calibration, judged))
        return plain(model, calibration, judged, **options)

    monkeypatch.setattr(sys.modules["distill.pipeline.quantize"], "choose_int8", watched)
    quantize(teacher_run.run, max_drop=0.5, calibration_images=20, out=tmp_path / "a.onnx")
    splits = load_splits(open_run(teacher_run.run, runs_dir=Path("runs")).recipe().data)
    (calibration, judged) = seen[0]
    train = {image.tobytes() for image in splits.train.take(slice(None))}
    test = {image.tobytes() for image in splits.test.take(slice(None))}
    assert {image.tobytes() for image in calibration} <= train
    assert not {image.tobytes() for image in judged.pixels} & (train | test)


def test_without_validation_images_it_says_so(train: Callable[..., RunResult], tmp_path: Path) -> None:
    run = train("data.val_fraction=0", "train.epochs=1", 'teacher.logits="live"')
    code, _, stderr = _cli("quantize", str(run.run), "--max-drop", "0.5", "--out", str(tmp_path / "a.onnx"))
    assert code == 0, stderr
    assert "judged on the images it was trained on" in stderr


def test_a_loss_is_measured_against_the_run_that_was_named(
    teacher_run: RunResult, train: Callable[..., RunResult], tmp_path: Path
) -> None:
    """A student's file against its teacher: of the same images, with other answers."""
    run = train("train.epochs=1", 'teacher.logits="live"').run
    made = quantize(run, against=teacher_run, max_drop=0.99, out=tmp_path / "a.onnx")
    teacher = load_trained(open_run(teacher_run.run), device=torch.device("cpu"))
    val = load_splits(teacher.recipe.data).val
    pixels = torch.from_numpy(val.take(slice(None)))
    theirs, ours = (model.logits(pixels).numpy().argmax(1) == val.labels for model in (teacher, open_onnx(made.file)))
    assert made.kept.drop.reference == pytest.approx(theirs.mean())
    assert made.kept.drop.drop.estimate == pytest.approx(theirs.mean() - ours.mean())
    other = train("train.epochs=1", 'teacher.logits="live"', "data.image_size=16").run
    with pytest.raises(UsageError, match="different classes, or images of another size"):
        quantize(run, against=other, max_drop=0.99, out=tmp_path / "b.onnx")
