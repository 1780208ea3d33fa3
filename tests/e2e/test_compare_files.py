"""Exported files in ``compare``: rows under their run, measured on the file itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from typer.testing import CliRunner

from distill.cli import app
from distill.comparison import compare
from distill.data.splits import load_splits
from distill.models.onnx_open import OnnxClassifier, on_bytes
from distill.pipeline import Options, RunResult, export, quantize, train_student
from distill.results.rows import Comparison
from distill.runs import RunFolder


def _cli(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def shipped(
    teacher_run: RunResult, student_recipe: Callable, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, Path]:
    """A student's run, its fp32 file and its int8 file."""
    root = tmp_path_factory.mktemp("shipped")
    options = Options(runs_dir=root / "runs", threads=1)
    recipe = student_recipe("name=student", "train.epochs=1", "teacher.logits=live")
    run = train_student(recipe, teacher=str(teacher_run.run), options=options).run
    exported = export(run, out=root / "exports" / "student_fp32.onnx").file
    quantized = quantize(run, out=root / "exports" / "student_int8.onnx", max_drop=0.9).file
    return run, exported, quantized


@pytest.fixture(scope="module")
def table(shipped: tuple[Path, Path, Path], teacher_run: RunResult) -> Comparison:
    run, exported, quantized = shipped
    return compare([teacher_run.run, quantized, run, exported], seconds_per_model=0.05)


def test_a_file_is_a_row_under_its_run(table: Comparison, shipped: tuple[Path, Path, Path]) -> None:
    run, exported, quantized = shipped
    assert [(row.run, row.runtime, row.source_run) for row in table.rows[1:]] == [
        (str(run), "torch fp32", None),
        (str(exported), "onnxruntime fp32", str(run)),
        (str(quantized), "onnxruntime int8", str(run)),
    ]
    teacher, student, fp32, int8 = table.rows
    assert fp32.name == "student_fp32"
    assert (int8.size_mb, int8.params) == (quantized.stat().st_size / 1e6, student.params)
    assert int8.teacher == fp32.teacher == teacher.run
    assert int8.times_smaller == pytest.approx(teacher.size_mb / int8.size_mb)
    assert None not in {value for row in table.rows for value in (row.latency_b1_ms, row.latency_b32_ms)}
    assert any("from bytes to logits" in note for note in table.notes)
    assert table.versions["onnxruntime"] == onnxruntime.__version__


def test_its_figures_are_those_of_the_file(
    table: Comparison, shipped: tuple[Path, Path, Path], teacher_run: RunResult
) -> None:
    """Against ONNX Runtime asked without distill, and the stored answers of the two runs."""
    test = load_splits(RunFolder(shipped[0]).recipe().data).test
    session = onnxruntime.InferenceSession(shipped[2], providers=["CPUExecutionProvider"])
    answers = session.run(None, {"images": test.take(slice(None))})[0].argmax(1)
    teachers, students = (
        np.load(run / "evaluation" / "test_logits.npy").argmax(1) for run in (teacher_run.run, shipped[0])
    )
    row = table.rows[3]
    assert row.test_top1 == pytest.approx((answers == test.labels).mean())
    assert row.agreement == pytest.approx((answers == teachers).mean())
    assert row.agreement_source == pytest.approx((answers == students).mean())
    assert row.delta_top1 == pytest.approx((answers == test.labels).mean() - (teachers == test.labels).mean())
    assert table.rows[2].agreement_source == 1.0


def test_the_test_set_is_read_once_a_file(
    table: Comparison, shipped: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OnnxClassifier, "logits", lambda *_: pytest.fail("asked again"))
    again = compare([shipped[0], shipped[2]], latency=False)
    assert [row.test_top1 for row in again.rows] == [table.rows[1].test_top1, table.rows[3].test_top1]


def test_the_run_of_a_file_joins_the_table_and_a_lost_one_is_said(
    shipped: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    run, _, quantized = shipped
    joined = compare([quantized, quantized], runs_dir=run.parents[1], latency=False)
    assert [row.run for row in joined.rows] == [str(run), str(quantized)]
    alone = compare([quantized], runs_dir=tmp_path, latency=False)
    (row,) = alone.rows
    assert (row.source_run, row.agreement_source, row.delta_top1) == (None, None, None)
    assert row.test_top1 == joined.rows[1].test_top1
    assert any(f"{quantized}: the run it came from (student) is not here" in note for note in alone.notes)


def test_a_run_that_was_trained_anew_is_not_the_files(shipped: tuple[Path, Path, Path], tmp_path: Path) -> None:
    run, _, quantized = shipped
    other = tmp_path / "runs" / "student" / "001"
    shutil.copytree(run, other, symlinks=True)
    checkpoint = next((other / "checkpoints").glob("*/model.safetensors"))
    assert compare([quantized], runs_dir=tmp_path / "runs", latency=False).rows[-1].source_run == str(other)
    for path in (other / "checkpoints").glob("*/model.safetensors"):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1  # another weight
        path.write_bytes(content)
    (other / "identity.json").unlink()
    assert checkpoint.exists()
    assert compare([quantized], runs_dir=tmp_path / "runs", latency=False).rows[-1].source_run is None


@pytest.mark.parametrize(
    ("gate", "code"),
    [
        ("student_int8.test_top1 >= student.test_top1 - 0.9", 0),
        ("student_int8.params == student_fp32.params", 0),
        ("student_int8.agreement_source > 1.5", 3),
        ("student_int8.test_top1 > student.test_top1 + 0.9", 3),
    ],
)
def test_gates_hold_a_file_against_its_run(shipped: tuple[Path, Path, Path], gate: str, code: int) -> None:
    arguments = ["compare", *map(str, shipped), "--no-latency", "--json", "-q", "--require", gate]
    found, stdout, stderr = _cli(*arguments)
    assert found == code, stderr
    assert len(json.loads(stdout)["rows"]) == 4 - 1 + ("tiny_teacher" in stdout)


def test_the_table_says_what_computed_each_row(shipped: tuple[Path, Path, Path]) -> None:
    code, stdout, _ = _cli("compare", *map(str, shipped), "--no-latency", "-q")
    assert code == 0
    assert "onnxruntime int8" in stdout
    assert "with its run" in stdout
    assert "onnxruntime" not in _cli("compare", str(shipped[0]), "--no-latency", "-q")[1]


# What is no file of ours


def _truncated(file: Path) -> bytes:
    return file.read_bytes()[: file.stat().st_size // 2]


def _outside(file: Path) -> bytes:
    model = onnx.load(file)
    tensor = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "../secret.bin"), ("offset", "0")):
        tensor.external_data.add(key=key, value=value)
    return model.SerializeToString()


def _other_classes(file: Path) -> bytes:
    model = onnx.load(file)
    for each in model.metadata_props:
        if each.key == "distill.classes":
            each.value = json.dumps([f"other {index}" for index in range(len(json.loads(each.value)))])
    return model.SerializeToString()


def _no_onnx(_: Path) -> bytes:
    return b"\x00\x01 no model"


_DAMAGES = {
    _truncated: (2, "is not an ONNX file, or it was cut"),
    _no_onnx: (2, "is not an ONNX file, or it was cut"),
    _outside: (1, "refers to weights in another file"),
    _other_classes: (1, "the classes are not those"),
}
_REFUSED = [(command, damage) for command in ("compare", "evaluate", "predict") for damage in _DAMAGES]
_REFUSED.remove(("predict", _other_classes))  # a file's own class names are all that it knows


@pytest.mark.parametrize(("command", "damage"), _REFUSED)
def test_artefacts_that_cannot_be_used_are_one_line(
    shipped: tuple[Path, Path, Path], tmp_path: Path, command: str, damage: Callable
) -> None:
    code, said = _DAMAGES[damage]
    secret, bad = tmp_path / "secret.bin", tmp_path / "in" / "bad.onnx"
    bad.parent.mkdir()
    secret.write_bytes(bytes(1 << 20))
    bad.write_bytes(damage(shipped[2]))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    picture = tmp_path.parent / "any.png"
    picture.write_bytes(b"")
    found, stdout, stderr = _cli(command, str(bad), *([str(picture)] if command == "predict" else []), "-q")
    assert (found, stdout) == (code, "")
    lines = [line for line in stderr.splitlines() if not line.startswith("hint")]
    assert len(lines) == 1
    assert said in lines[0]
    assert "bad.onnx" in lines[0]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_bytes_lie_ready_before_a_timed_call() -> None:
    seen = []

    class Session:
        def run(self, _: list[str], feed: dict[str, np.ndarray]) -> None:
            seen.append(feed["images"])

    forward = on_bytes(Session(), 8)
    for count in (1, 32, 1, 32):
        forward(np.zeros((count, 3, 8, 8)))
    assert [each.shape for each in seen] == [(count, 3, 8, 8) for count in (1, 32, 1, 32)]
    assert seen[0] is seen[2]
    assert seen[1] is seen[3]
