"""An ONNX classifier of another framework teaches: its own pixels, layout and order of classes, and no code of its."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from distill.comparison import compare
from distill.data.splits import load_splits
from distill.errors import RunError, UsageError
from distill.models.onnx_teacher import open_onnx_teacher
from distill.pipeline import Options, build_bank, export, resume_run, train_student
from distill.pipeline.teacher import taught_by
from distill.recipe.schema import OnnxInput
from distill.runs import RunFolder
from distill.teaching.bank import Bank

CPU = torch.device("cpu")
SIDE, OUTPUTS = 8, 11  # one more than the data has classes
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
RNG = np.random.default_rng(0)
WEIGHT, BIAS = (RNG.standard_normal(shape).astype(np.float32) for shape in ((3, OUTPUTS), (OUTPUTS,)))


def _file(path: Path, *, layout: str = "nchw", batch: int | str = "n", scale: float = 1.0) -> Path:
    """Mean colour, then a linear layer: what it answers can be worked out by hand."""
    shape = [batch, 3, SIDE, SIDE] if layout == "nchw" else [batch, SIDE, SIDE, 3]
    axes = [2, 3] if layout == "nchw" else [1, 2]
    nodes = [
        helper.make_node("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=0),
        helper.make_node("Gemm", ["mean", "w", "b"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, OUTPUTS])],
        [
            numpy_helper.from_array(np.array(axes, dtype=np.int64), "axes"),
            numpy_helper.from_array(scale * WEIGHT, "w"),
            numpy_helper.from_array(BIAS, "b"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def _names(classes: tuple[str, ...]) -> list[str]:
    """The file's own order: backwards, with one that the data does not have in the middle."""
    names = list(reversed(classes))
    return [*names[:4], "none of them", *names[4:]]


@pytest.fixture
def classes(student_recipe) -> tuple[str, ...]:
    return load_splits(student_recipe().data).dataset.classes


@pytest.fixture
def recipe(student_recipe, classes: tuple[str, ...], tmp_path: Path):
    def make(*overrides: str, path: Path | None = None, layout: str = "nchw"):
        file = path or _file(tmp_path / "other.onnx", layout=layout)
        taken = f"{{size: {SIDE}, layout: {layout}, mean: {list(MEAN)}, std: {list(STD)}}}"
        names = "[" + ", ".join(f"'{name}'" for name in _names(classes)) + "]"
        return student_recipe(f"teacher={{onnx: '{file}', input: {taken}, classes: {names}}}", *overrides)

    return make


def _weights(run: Path) -> bytes:
    return (run / "checkpoints" / "last" / "model.safetensors").read_bytes()


@pytest.mark.parametrize(("layout", "batch"), [("nchw", "n"), ("nhwc", "n"), ("nchw", 3)])
def test_its_answers_by_hand_in_the_order_of_the_data(
    classes: tuple[str, ...], tmp_path: Path, layout: str, batch: int | str
) -> None:
    path = _file(tmp_path / "other.onnx", layout=layout, batch=batch)
    given = OnnxInput(size=SIDE, layout=layout, mean=MEAN, std=STD)  # type: ignore[arg-type]
    teacher = open_onnx_teacher(path, given=given, named=tuple(_names(classes)), classes=classes)
    pixels = RNG.integers(0, 256, (7, 3, SIDE, SIDE), dtype=np.uint8)
    colour = ((pixels / 255.0 - np.array(MEAN)[:, None, None]) / np.array(STD)[:, None, None]).mean(axis=(2, 3))
    scores = colour @ WEIGHT + BIAS
    order = [_names(classes).index(name) for name in classes]
    np.testing.assert_allclose(teacher(torch.from_numpy(pixels)).numpy(), scores[:, order], rtol=1e-4, atol=1e-4)


def test_probabilities_teach_nobody_as_if_they_were_logits(recipe, tmp_path: Path) -> None:
    model = onnx.load(_file(tmp_path / "other.onnx"))
    model.graph.node[-1].output[0] = "logits"
    model.graph.node.append(helper.make_node("Softmax", ["logits"], ["scores"]))
    onnx.save(model, tmp_path / "soft.onnx")
    with pytest.raises(UsageError, match=r"soft.onnx answers probabilities, and not logits"):
        train_student(recipe(path=tmp_path / "soft.onnx"), options=Options(runs_dir=tmp_path / "runs", threads=1))
    assert not (tmp_path / "runs").exists()


def test_live_and_bank_train_to_the_same_bytes_and_compare_has_its_row(recipe, tmp_path: Path) -> None:
    options = Options(runs_dir=tmp_path / "runs", threads=1)
    live = train_student(recipe("teacher.logits=live"), options=options)
    bank = train_student(recipe("teacher.logits=bank"), options=options)
    assert _weights(live.run) == _weights(bank.run)
    about = RunFolder(bank.run).info.teacher
    assert (about["run"], about["name"]) == (None, "other")
    stored = Bank.open(Path(about["bank"]))
    assert stored.path.parent == tmp_path / "other.banks"
    assert stored.info.runtime["name"] == "onnxruntime"
    row = next(row for row in compare([bank.run], latency=False).rows if row.role == "teacher")
    assert (row.name, row.run, row.test_top1) == ("other", str(stored.path), stored.info.teacher.figures.test_top1)
    assert compare([live.run], latency=False).rows[0].delta_top1 is None


def test_a_file_that_distill_exported_says_itself_what_it_takes(teacher_run, student_recipe, tmp_path: Path) -> None:
    file = export(teacher_run.run, out=tmp_path / "mine.onnx").file
    row = build_bank(student_recipe(), teacher=str(file), options=Options(runs_dir=tmp_path / "runs", threads=1))
    bank = Bank.open(Path(row.path))
    near = build_bank(
        student_recipe(), teacher=str(teacher_run.run), path=tmp_path / "near", options=Options(threads=1)
    )
    theirs = Bank.open(Path(near.path)).view(0).astype(np.float32)
    np.testing.assert_allclose(bank.view(0).astype(np.float32), theirs, atol=0.02)


def test_what_does_not_fit_is_one_line(recipe, student_recipe, classes: tuple[str, ...], tmp_path: Path) -> None:
    options = Options(runs_dir=tmp_path / "runs", threads=1)
    path = _file(tmp_path / "other.onnx")
    with pytest.raises(UsageError, match="does not say what it takes"):
        train_student(student_recipe(f"teacher={{onnx: '{path}'}}"), options=options)
    with pytest.raises(UsageError, match="does not say which classes its 11 outputs are"):
        train_student(student_recipe(f"teacher={{onnx: '{path}', input: {{size: {SIDE}}}}}"), options=options)
    with pytest.raises(UsageError, match=r"takes pixels tensor\(float\).*not one batch of 3 x 16 x 16"):
        train_student(recipe("teacher.input.size=16"), options=options)
    names = [name if name != classes[3] else "other" for name in _names(classes)]
    with pytest.raises(UsageError, match="does not know 1 of the data's 10 classes"):
        train_student(recipe(f"teacher.classes={names}"), options=options)
    with pytest.raises(UsageError, match="2 different names for the 11 outputs"):
        train_student(recipe("teacher.classes=[a, b]"), options=options)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("objective={kind: rkd}", "the recipe's objective rkd asks for features: a file has logits alone"),
        ("teacher.features=pooled", "the recipe's teacher.features asks for features: a file has logits alone"),
        ("objective={kind: simkd}", "the recipe's objective simkd asks for features: a file has logits alone"),
    ],
)
def test_what_a_run_alone_can_give_is_not_asked_of_a_file(student_recipe, setting: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        taught_by(student_recipe(setting), ["theirs.onnx"])
    assert caught.value.message == f"--teacher theirs.onnx: {reason}"
    assert caught.value.hint is None


def test_a_run_is_not_gone_on_with_when_its_file_is_another(recipe, tmp_path: Path) -> None:
    options = Options(runs_dir=tmp_path / "runs", threads=1)
    run = train_student(recipe("teacher.logits=live"), options=options).run
    RunFolder(run).write_info(status="interrupted")
    (run / "result.json").unlink()
    _file(tmp_path / "other.onnx", scale=2.0)
    with pytest.raises(RunError, match="changed since this run began: teacher"):
        resume_run(run, options=options)
