"""``distill quantize``: an int8 file that lost no more than it may, or none."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from distill.cli import app
from distill.data.splits import load_splits
from distill.errors import GateMissedError, InterruptedRunError, UsageError
from distill.events import CheckpointSaved
from distill.models.onnx_open import open_onnx
from distill.models.trained import load_trained
from distill.pipeline import Options, RunResult, quantize
from distill.report.deployment import quantized_table
from distill.runs import RunFolder, open_run
from distill.teaching.identity import read_identity


def _cli(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


@contextmanager
def _blinding(model: Any, images: np.ndarray) -> Iterator[Callable[[object], Any]]:
    yield lambda scheme: _blinded(model)


def _blinded(model: Any) -> Any:
    made = type(model)()
    made.CopyFrom(model)
    for tensor in made.graph.initializer:
        if len(tensor.dims) == 4 and tensor.dims[1] == 3:  # a blind first layer
            tensor.raw_data = bytes(len(tensor.raw_data))
    return made


def test_the_file_and_its_document(teacher_run: RunResult, tmp_path: Path) -> None:
    out = tmp_path / "teacher_int8.onnx"
    code, stdout, stderr = _cli(
        "quantize", str(teacher_run.run), "--max-drop", "0.1", "--out", str(out), "--json", "-q"
    )
    assert code == 0, stderr
    document = json.loads(stdout)
    kept = [each for each in document["attempts"] if each["kept"]]
    assert [each["scheme"] for each in kept] == [document["scheme"]]
    latencies = [each["latency_b1_ms"] for each in document["attempts"] if each["latency_b1_ms"] is not None]
    assert kept[0]["latency_b1_ms"] <= 1.05 * min(latencies)  # of those as fast the first is taken, every time

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
    monkeypatch.setattr("distill.compression.choose.quantizer", _blinding)
    code, _, stderr = _cli("quantize", str(teacher_run.run), "--no-train", "--out", str(tmp_path / "a.onnx"), "-q")
    assert code == 3
    assert "no file was written" in stderr
    assert not list(tmp_path.iterdir())


def test_to_prove_it_takes_more_images_than_these(teacher_run: RunResult, tmp_path: Path) -> None:
    out = str(tmp_path / "a.onnx")
    code, _, stderr = _cli("quantize", str(teacher_run.run), "--max-drop", "0.05", "--prove", "--out", out)
    assert code == 3  # 15 validation images prove nothing
    assert "shown to lose at most 5 points" in stderr
    assert "54 images, answered alike, would show it" in stderr
    assert "not trained on: of so few images" in stderr
    allowed = float(re.search(r"allow more: --max-drop (\S+?);", stderr)[1])
    assert allowed > 0.05
    arguments = ("--max-drop", str(allowed), "--prove", "--no-train", "--out", out, "-q")
    assert _cli("quantize", str(teacher_run.run), *arguments)[0] == 0  # what the hint says would do, does


def test_calibration_reads_training_images_alone(
    teacher_run: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    plain = sys.modules["distill.pipeline.quantize"].choose_int8

    def watched(model: object, *, calibration: np.ndarray, judged: object, **options: object) -> object:
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


def test_without_validation_images_it_says_so_and_judges_by_some_of_the_others(
    train: Callable[..., RunResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["distill.pipeline.quantize"], "_JUDGED_MOST", 40)
    run = train("data.val_fraction=0", "train.epochs=1", 'teacher.logits="live"')
    code, out, stderr = _cli("quantize", str(run.run), "--max-drop", "0.5", "--out", str(tmp_path / "a.onnx"), "--json")
    assert code == 0, stderr
    assert "judged on images it was trained on" in stderr
    made = json.loads(out)
    assert {(made["split"], each["drop"]["images"]) for each in made["attempts"]} == {("train", 40)}
    assert "points on 40 train images" not in stderr, "told of what is not good enough alone"


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
    told: list[Any] = []
    options = Options(runs_dir=tmp_path / "runs", on_event=told.append)
    again = train("train.epochs=1", 'teacher.logits="live"', "data.split_seed=5").run
    quantize(run, against=again, max_drop=0.99, out=tmp_path / "c.onnx", options=options)
    (line,) = [each.message for each in told if "what is measured against it worse" in getattr(each, "message", "")]
    split, other_split = (load_splits(open_run(each).recipe().data) for each in (run, again))
    shared = np.intersect1d(other_split.train.base_index(slice(None)), split.val.base_index(slice(None)))
    assert f"trained on {len(shared)} of the {len(split.val)} validation images" in line
    other = train("train.epochs=1", 'teacher.logits="live"', "data.image_size=16").run
    with pytest.raises(UsageError, match="different classes, or images of another size"):
        quantize(run, against=other, max_drop=0.99, out=tmp_path / "b.onnx")


def _only_trained_weights_pass(monkeypatch: pytest.MonkeyPatch, source: Path) -> None:
    """Every int8 graph of ``source``'s own weights loses too much."""
    own = read_identity(open_run(source), device=torch.device("cpu")).weights
    verb = sys.modules["distill.pipeline.quantize"]
    real = verb.choose_int8

    def choose(model: Any, *, allowed: float, **options: Any) -> Any:
        about = {each.key: json.loads(each.value) for each in model.metadata_props}
        return real(model, allowed=-1.0 if about["distill.weights_sha256"] == own else allowed, **options)

    monkeypatch.setattr(verb, "choose_int8", choose)


def test_where_calibration_is_not_enough_the_network_learns_on_with_rounded_weights(
    train: Callable[..., RunResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train("teacher.logits=bank", "augment.view_seed=131").run
    _only_trained_weights_pass(monkeypatch, run)
    monkeypatch.setattr(sys.modules["distill.pipeline.source"], "open_live", None)  # its bank answers, no teacher
    options = Options(runs_dir=tmp_path / "runs", threads=2)
    made = quantize(run, max_drop=0.99, epochs=2, out=tmp_path / "a.onnx", options=options)
    rounded = RunFolder(tmp_path / "runs" / "tiny_student_qat" / "001")
    assert made.trained == rounded.path
    assert (rounded.info.threads, made.threads) == (2, 1)  # files are timed on timing_threads
    assert made.kept.trained
    assert [each.trained for each in made.attempts] == sorted(each.trained for each in made.attempts)
    before, recipe = open_run(run).recipe(), rounded.recipe()
    assert (recipe.train.fake_quantize, recipe.train.epochs, recipe.optim.lr) == (7, 2, before.optim.lr / 100)
    assert rounded.info.extra["init_from"] == str(run)
    assert rounded.info.teacher["bank"] == RunFolder(run).info.teacher["bank"]
    assert open_onnx(made.file).about.weights_sha256 == read_identity(rounded, device=torch.device("cpu")).weights
    # what was lost is counted against the run itself, not against the network that was trained on
    val = load_splits(before.data).val
    reference = load_trained(open_run(run), device=torch.device("cpu"))(torch.from_numpy(val.take(slice(None))))
    assert made.kept.drop.reference == pytest.approx((reference.numpy().argmax(1) == val.labels).mean())
    document = json.loads(json.dumps(made.to_json()))
    assert document["trained"] == str(rounded.path)
    console = Console(width=300, file=io.StringIO())
    console.print(quantized_table(made, 300))
    assert "tiny_student_qat/001, quantisation-aware" in console.file.getvalue()


def test_decay_that_is_apart_from_the_rate_falls_with_it_and_grown_terms_are_whole(
    train: Callable[..., RunResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a hundredth of the rate the decay of a step would else be a hundred times as strong beside the gradients."""
    decay = "optim={name: sgd, lr: 0.05, momentum: 0.85, weight_decay: 5e-3, decoupled_decay: true}"
    run = train("teacher.logits=live", "train.epochs=1", decay, "objective={kind: dkd, ramp_epochs: 20}").run
    _only_trained_weights_pass(monkeypatch, run)
    made = quantize(run, max_drop=0.99, epochs=4, out=tmp_path / "a.onnx", options=Options(runs_dir=tmp_path / "runs"))
    rounded = open_run(made.trained)
    before, after = (load_trained(open_run(each), device=torch.device("cpu")).module for each in (run, rounded))
    for (name, was), now in zip(before.named_parameters(), after.parameters(), strict=True):
        if was.ndim > 1:
            assert now.norm() > 0.97 * was.norm(), name
    assert rounded.recipe().optim.weight_decay == pytest.approx(5e-5)
    assert rounded.recipe().objective.ramp_epochs == 0


def test_the_same_command_goes_on_with_training_that_was_stopped(
    train: Callable[..., RunResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train("teacher.logits=live", "train.epochs=1").run
    _only_trained_weights_pass(monkeypatch, run)
    seen = []

    def stop(event: object) -> None:
        seen.append(event)
        if isinstance(event, CheckpointSaved):
            raise KeyboardInterrupt

    options = Options(runs_dir=tmp_path / "runs", on_event=stop)
    with pytest.raises((KeyboardInterrupt, InterruptedRunError)):
        quantize(run, max_drop=0.99, epochs=2, out=tmp_path / "a.onnx", options=options)
    assert not (tmp_path / "a.onnx").exists()
    options = Options(runs_dir=tmp_path / "runs")
    made = quantize(run, max_drop=0.99, epochs=2, out=tmp_path / "a.onnx", options=options)
    assert quantize(run, max_drop=0.99, epochs=2, out=tmp_path / "b.onnx", options=options).trained == made.trained
    assert [path.name for path in (tmp_path / "runs" / "tiny_student_qat").glob("0*")] == ["001"]
    assert RunFolder(made.trained).metrics()[-1]["epoch"] == 2
    _only_trained_weights_pass(monkeypatch, made.trained)
    told: list[object] = []
    options = Options(runs_dir=tmp_path / "runs", on_event=told.append)
    with pytest.raises(GateMissedError, match="no file was written"):
        quantize(made.trained, max_drop=0.0, out=tmp_path / "c.onnx", options=options)
    assert any("quantisation-aware training already" in str(event) for event in told)
    assert not (tmp_path / "runs" / "tiny_student_qat_qat").exists()
