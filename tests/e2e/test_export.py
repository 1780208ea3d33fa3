"""``distill export``: files that answer as their run does, or no file."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from distill.cli import app
from distill.compression.parity import check_parity
from distill.data.splits import load_splits
from distill.errors import RunError
from distill.models import build_model, build_normalize
from distill.models.deployed import Deployed
from distill.models.onnx_metadata import FileAbout
from distill.models.onnx_open import OnnxClassifier, open_onnx
from distill.models.onnx_write import to_onnx, write_onnx
from distill.models.trained import load_trained
from distill.pipeline import RunResult, export
from distill.recipe import parse_recipe
from distill.runs import open_run


def _cli(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


def test_a_file_answers_the_test_images_as_its_run_does(teacher_run: RunResult, tmp_path: Path) -> None:
    made = export(teacher_run.run, out=tmp_path / "teacher.onnx")
    run = open_run(teacher_run.run, runs_dir=Path("runs"))
    trained = load_trained(run, device=torch.device("cpu"))
    images = torch.from_numpy(load_splits(trained.recipe.data).test.take(slice(0, 60)))
    classifier = open_onnx(made.file)
    torch.testing.assert_close(classifier.logits(images), trained(images), atol=1e-4, rtol=1e-4)
    assert classifier.classes == run.classes
    assert classifier.about.weights_sha256 == trained.sha256
    assert (made.parity.images, made.parity.split, made.parity.changed_top1) == (15, "val", 0)


def test_the_command_and_its_document(teacher_run: RunResult, tmp_path: Path) -> None:
    out = str(tmp_path / "a.onnx")
    code, stdout, _ = _cli("export", str(teacher_run.run), "--out", out, "--json", "-q")
    document = json.loads(stdout)
    assert code == 0
    assert document["file"] == out
    assert document["runtime"] == "onnxruntime fp32"
    assert document["size_mb"] == pytest.approx(Path(out).stat().st_size / 1e6)

    before = Path(out).read_bytes()
    code, _, stderr = _cli("export", str(teacher_run.run), "--out", out)
    assert (code, Path(out).read_bytes()) == (2, before)
    assert "is there" in stderr
    assert "--overwrite" in stderr
    assert _cli("export", str(teacher_run.run), "--out", out, "--overwrite", "-q")[0] == 0


@pytest.mark.filterwarnings("ignore:The given buffer is not writable")  # reading one with torch 2.11
def test_a_torch_program_answers_as_its_run_does(teacher_run: RunResult, tmp_path: Path) -> None:
    made = export(teacher_run.run, to="torch", out=tmp_path / "teacher.pt2")
    program = torch.export.load(made.file).module()
    trained = load_trained(open_run(teacher_run.run, runs_dir=Path("runs")), device=torch.device("cpu"))
    images = torch.from_numpy(load_splits(trained.recipe.data).test.take(slice(0, 7)))
    torch.testing.assert_close(program(images), trained(images), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "net.bin"], "ends in .onnx"),
        (["--out", "."], "is a folder"),
        (["--to", "torch", "--out", "net.onnx"], "ends in .pt2"),
        (["--out", f"{__file__}/net.onnx"], f"{__file__} is no folder"),
        (["--runs", __file__], "test_export.py is a file"),
    ],
)
def test_names_that_no_export_can_have(teacher_run: RunResult, arguments: list[str], said: str) -> None:
    code, _, stderr = _cli("export", str(teacher_run.run), *arguments)
    assert code == 2
    assert said in stderr


@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
def test_what_a_killed_export_left_is_cleared_by_the_next(teacher_run: RunResult, tmp_path: Path, suffix: str) -> None:
    left = tmp_path / f".net.{suffix}.0123456789ab.partial"
    left.write_text("half")
    os.utime(left, (0, 0))
    export(teacher_run.run, to={"onnx": "onnx", "pt2": "torch"}[suffix], out=tmp_path / f"net.{suffix}")
    assert [each.name for each in tmp_path.iterdir()] == [f"net.{suffix}"]


def test_a_miss_leaves_no_file(teacher_run: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def drifted(*args: object, **kwargs: object) -> object:
        model = to_onnx(*args, **kwargs)
        weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        weights.raw_data = (np.frombuffer(weights.raw_data, np.float32) * np.float32(1.01)).tobytes()
        return model

    monkeypatch.setattr(sys.modules["distill.pipeline.export"], "to_onnx", drifted)  # the verb hides its module
    with pytest.raises(RunError, match="does not answer as its network"):
        export(teacher_run.run, out=tmp_path / "bad.onnx")
    assert not list(tmp_path.iterdir())


def test_ties_may_fall_either_way_and_nothing_else() -> None:
    reference = np.array([[1.0, 1.0, 0.0], [1.0, 0.5, 0.0]], dtype=np.float32)
    tied = check_parity(reference, reference + np.array([[0, 2e-5, 0], [0, 0, 0]], np.float32), split="val")
    assert tied.holds
    changed = check_parity(reference, reference[:, [1, 0, 2]], split="val")
    assert (changed.changed_top1, changed.holds) == (1, False)
    broken = check_parity(reference, np.full_like(reference, np.nan), split="val")
    assert not broken.holds


_STUDENTS = [
    "{source: students, name: resnet, blocks: [1, 1], channels: [8, 16], strides: [1, 2]}",
    "{source: students, name: resnet, blocks: [1, 1], channels: [8, 16], strides: [1, 2], pre_activation: true}",
    "{source: students, name: grouped_resnet}",
    "{source: students, name: lenet}",
    "{source: students, name: cnn}",
    "{source: students, name: tiny}",
    "{source: teachers, name: tiny}",
    "{source: teachers, name: resnet9}",
]
_TIMM = ["resnet10t", "mobilenetv3_small_050", "vit_tiny_patch16_224"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", [*_STUDENTS, *(f"{{source: timm, name: {name}, weights: none, input_size: 32}}" for name in _TIMM)]
)
def test_every_builder_and_three_timm_families_answer_alike(model: str, tmp_path: Path) -> None:
    recipe = parse_recipe(
        f"schema_version: 1\nname: net\nrole: teacher\ndata: {{name: synthetic}}\nmodel: {model}\n"
        "optim: {name: sgd}\ntrain: {epochs: 1}\n",
        source="test",
    )
    network = build_model(recipe.model, num_classes=10, seed=3).eval()
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():  # statistics that folding must get right
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(generator=generator, std=0.1)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    normalize = build_normalize(recipe.model, mean=(0.5,) * 3, std=(0.25,) * 3)
    side = recipe.data.side
    about = FileAbout("net", "teacher", tuple("abcdefghij"), side, "0" * 64, "", 1, 1.0)
    path = tmp_path / "net.onnx"
    write_onnx(to_onnx(Deployed(network, normalize, image_size=side), about), path)
    pixels = torch.randint(0, 256, (64, 3, side, side), dtype=torch.uint8, generator=generator)
    with torch.no_grad():
        expected = network(normalize(pixels)).numpy()
    parity = check_parity(expected, open_onnx(path).logits(pixels).numpy(), split="val")
    assert parity.holds, parity


def test_export_needs_a_finished_run(train: Callable[..., RunResult], tmp_path: Path) -> None:
    code, _, stderr = _cli("export", "nothing", "--runs", str(tmp_path))
    assert code == 2
    assert "nothing" in stderr


# A file where a run may stand


@pytest.fixture(scope="module")
def file(teacher_run: RunResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(teacher_run.run, out=tmp_path_factory.mktemp("exports") / "teacher.onnx").file


def test_predict_needs_nothing_but_the_file(
    file: Path, teacher_run: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = load_splits(open_run(teacher_run.run, runs_dir=Path("runs")).recipe().data).test.take(slice(0, 3))
    pictures = [tmp_path / f"{number}.png" for number in range(3)]
    for path, image in zip(pictures, pixels, strict=True):
        Image.fromarray(image.transpose(1, 2, 0)).save(path)
    expected = json.loads(_cli("predict", str(teacher_run.run), *map(str, pictures), "--json", "-q")[1])
    alone = tmp_path / "elsewhere"
    alone.mkdir()
    (alone / "m.onnx").write_bytes(file.read_bytes())
    monkeypatch.chdir(alone)
    code, stdout, stderr = _cli("predict", "m.onnx", *map(str, pictures), "--json", "-q")
    assert code == 0, stderr
    for ours, theirs in zip(json.loads(stdout), expected, strict=True):
        assert [guess["label"] for guess in ours["top"]] == [guess["label"] for guess in theirs["top"]]
        for one, other in zip(ours["top"], theirs["top"], strict=True):
            assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)
    assert [path.name for path in alone.iterdir()] == ["m.onnx"]


def test_evaluate_reads_the_test_set_once_a_file(
    file: Path, teacher_run: RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = json.loads(_cli("evaluate", str(teacher_run.run), "--json", "-q")[1])
    found = json.loads(_cli("evaluate", str(file), "--json", "-q")[1])
    assert found["run"] == str(file)
    assert found["confusion"] == expected["confusion"]
    assert found["nll"] == pytest.approx(expected["nll"], rel=1e-4)
    monkeypatch.setattr(OnnxClassifier, "logits", lambda *_: pytest.fail("asked again"))
    assert json.loads(_cli("evaluate", str(file), "--json", "-q")[1])["nll"] == found["nll"]


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_files_that_are_none_are_one_line(command: str, tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"\x00\x01")
    code, _, stderr = _cli(command, str(bad), *([str(bad)] if command == "predict" else []))
    assert code == 2
    assert "bad.onnx is not an ONNX file" in stderr
