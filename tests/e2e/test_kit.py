"""A kit: measured by its own script in an environment of numpy and onnxruntime alone, and back in the table."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime
import pytest
from rich.console import Console
from typer.testing import CliRunner

from distill.certificate import write_kit
from distill.cli import app
from distill.comparison import compare
from distill.data.splits import load_splits
from distill.errors import RunError, UsageError
from distill.files import json_sha256, sha256_file
from distill.pipeline import Options, RunResult, export, quantize, train_student
from distill.report.comparison import comparison_table
from distill.runs import RunFolder

ALONE = ("numpy", "onnxruntime")


def _cli(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def shipped(
    teacher_run: RunResult, student_recipe: Callable, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A student's run and its file."""
    root = tmp_path_factory.mktemp("packed")
    recipe = student_recipe("name=student", "train.epochs=1", "teacher.logits=live")
    run = train_student(recipe, teacher=str(teacher_run.run), options=Options(runs_dir=root / "runs", threads=1)).run
    return run, export(run, out=root / "exports" / "student.onnx").file


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a virtual environment that holds numpy and onnxruntime, and nothing else at all."""
    folder = tmp_path_factory.mktemp("bare")
    venv.EnvBuilder(with_pip=False, symlinks=os.name != "nt").create(folder)
    (site,) = [*folder.glob("lib/python*/site-packages"), *folder.glob("Lib/site-packages")]
    for name in ALONE:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        home = Path(spec.origin).parent
        for part in (home, home.with_name(f"{name}.libs")):  # the second is where wheels of Linux keep libraries
            if part.is_dir():
                (site / part.name).symlink_to(part, target_is_directory=True)
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _run(python: Path, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [python, "-I", *map(str, arguments)], capture_output=True, text=True, cwd=cwd, env=clean, check=False
    )


@pytest.fixture(scope="module")
def measured(
    shipped: tuple[Path, Path], bare: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, subprocess.CompletedProcess[str]]:
    """A kit that was measured there: its folder, device.json, and what was printed."""
    kit = tmp_path_factory.mktemp("there") / "kit"
    code, _, stderr = _cli("kit", shipped[1], kit, "--images", 40)
    assert code == 0, stderr
    done = _run(bare, kit / "measure.py", "--seconds", "0.1", "--name", "board", cwd=kit.parent)
    return kit, kit / "device.json", done


def test_the_environment_holds_nothing_else(bare: Path, tmp_path: Path) -> None:
    for name in ("torch", "distill", "onnx", "pydantic", "pip"):
        assert _run(bare, "-c", f"import {name}", cwd=tmp_path).returncode == 1, name
    assert _run(bare, "-c", "import numpy, onnxruntime", cwd=tmp_path).returncode == 0


def test_it_measures_itself_where_there_is_nothing_else(
    shipped: tuple[Path, Path], measured: tuple[Path, Path, subprocess.CompletedProcess[str]]
) -> None:
    """Its accuracy against the bare runtime on the same images, taken from the data set anew."""
    kit, report, done = measured
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(report.read_text())
    test = load_splits(RunFolder(shipped[0]).recipe().data).test
    at = [int(place) for place in np.linspace(0, len(test) - 1, 40)]
    session = onnxruntime.InferenceSession(shipped[1], providers=["CPUExecutionProvider"])
    right = int((session.run(None, {"images": test.take(np.array(at))})[0].argmax(1) == test.labels[at]).sum())
    assert document["accuracy"] == {"images": 40, "right": right, "same_answers": 40}
    assert f"{right} of 40 images" in done.stdout
    assert document["kit"]["test_images"] == len(test)
    assert set(document["latency"]) == {"1", "32"}
    assert document["machine"]["cpu"] in done.stdout
    assert document["versions"]["onnxruntime"] == onnxruntime.__version__
    assert sorted(path.name for path in kit.iterdir()) == [
        "README.txt", "device.json", "images.npz", "kit.json", "measure.py", "student.onnx"
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["images.npz", "student.onnx", "kit.json"])
@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_kit_that_is_not_whole_says_so(
    measured: tuple[Path, Path, subprocess.CompletedProcess[str]], bare: Path, tmp_path: Path, name: str, damage: str
) -> None:
    kit = Path(shutil.copytree(measured[0], tmp_path / "kit"))
    if damage == "missing":
        (kit / name).unlink()
    else:
        (kit / name).write_bytes((kit / name).read_bytes()[:-2])
    done = _run(bare, kit / "measure.py", "--seconds", "0.1", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert name in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("out", ["kit/student.onnx", "notes.md", "kit", "nowhere/report.json"])
def test_a_report_replaces_nothing_but_a_report(
    measured: tuple[Path, Path, subprocess.CompletedProcess[str]], bare: Path, tmp_path: Path, out: str
) -> None:
    """Said before anything is measured: that would take an hour."""
    kit = Path(shutil.copytree(measured[0], tmp_path / "kit"))
    (tmp_path / "notes.md").write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = _run(bare, kit / "measure.py", "--seconds", "3599", "--out", out, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: --out {out}")
    assert len(done.stderr.splitlines()) == 1
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    again = _run(bare, kit / "measure.py", "--seconds", "0.1", cwd=tmp_path)
    assert again.returncode == 0, again.stderr  # its own report may be made anew


def test_the_script_imports_nothing_else() -> None:
    """Whatever this environment holds: a module that only some branch needs would be missed by a run."""
    import ast

    import distill.devices.kit_script as script

    tree = ast.parse(Path(script.__file__).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    standard = set(
        ["__future__", "argparse", "hashlib", "json", "os", "platform", "re", "subprocess", "sys", "time", "typing"]
    )
    assert names == standard | set(ALONE)


# Back in the table


def test_its_row_is_told_apart(
    shipped: tuple[Path, Path], measured: tuple[Path, Path, subprocess.CompletedProcess[str]], teacher_run: RunResult
) -> None:
    run, file = shipped
    table = compare([teacher_run.run, run, file], latency=False, reports=[measured[1]], baseline=run)
    document = json.loads(measured[1].read_text())
    (row,) = (each for each in table.rows if each.measured_on is not None)
    assert [each.name for each in table.rows] == ["tiny_teacher", "student", "student", "student-board"]
    assert row.measured_on == f"{document['machine']['cpu']}, 1 thread"
    assert (row.run, row.test_images) == (str(measured[1]), 40)
    assert row.latency_b1_ms == document["latency"]["1"]["median_ms"]
    assert (row.on_front, row.teacher, row.times_faster, row.baseline, row.delta_top1) == (None,) * 5
    assert row.test_set not in {each.test_set for each in table.rows if each is not row}
    (note,) = (note for note in table.notes if note.startswith("student-board"))
    assert "was not measured here" in note
    assert "40 of 60 test images" in note
    console = Console(width=300, file=io.StringIO())
    console.print(comparison_table(table, 300))
    assert "accuracy on 60 test images of synthetic\n" in re.sub(" +\n", "\n", console.file.getvalue())


def test_the_command_takes_a_report_beside_a_device(
    shipped: tuple[Path, Path], measured: tuple[Path, Path, subprocess.CompletedProcess[str]]
) -> None:
    options = ["compare", shipped[0], "--no-latency", "-q", "--measured", measured[1], "--device", "cpu"]
    code, stdout, stderr = _cli(*options)
    assert code == 0, stderr
    assert "measured on" in stdout
    assert "this machine" in stdout
    assert _cli(*options, "--require", "student-board.latency_b1_ms < 1000000")[0] == 0
    assert _cli(*options, "--require", "student-board.latency_b1_ms < 0.000001")[0] == 3
    code, _, stderr = _cli(*options, "--require", "student-board.test_top1 >= student.test_top1 - 1")
    assert (code, "was tested on other images" in stderr) == (2, True)


def _faster(tree: dict[str, Any]) -> None:
    tree["latency"]["1"]["median_ms"] /= 2


def _resealed(tree: dict[str, Any], **changes: Any) -> None:
    tree |= changes
    tree.pop("seal")
    tree["seal"] = json_sha256(tree)


def _hostile_name(tree: dict[str, Any]) -> None:
    _resealed(tree, name="\x1b[31mred")


def _too_many_right(tree: dict[str, Any]) -> None:
    _resealed(tree, accuracy={"images": 40, "right": 41, "same_answers": 40})


def _something_else(tree: dict[str, Any]) -> None:
    tree.clear()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_faster, "was edited"),
        (_hostile_name, "damaged: name"),
        (_too_many_right, "damaged"),
        (_something_else, "is not what a kit wrote"),
    ],
)
def test_a_report_that_cannot_be_used_is_one_line(
    shipped: tuple[Path, Path],
    measured: tuple[Path, Path, subprocess.CompletedProcess[str]],
    tmp_path: Path,
    damage: Callable,
    said: str,
) -> None:
    tree, path = json.loads(measured[1].read_text()), tmp_path / "device.json"
    damage(tree)
    path.write_text(json.dumps(tree))
    code, stdout, stderr = _cli("compare", shipped[0], "--no-latency", "-q", "--measured", path)
    assert (code, stdout) == (1, "")
    assert said in stderr
    assert len([line for line in stderr.splitlines() if not line.startswith("hint")]) == 1


def test_two_machines_need_two_names(
    shipped: tuple[Path, Path], measured: tuple[Path, Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    again = Path(shutil.copy(measured[1], tmp_path))
    with pytest.raises(UsageError, match="two rows would be called student-board"):
        compare([shipped[0]], latency=False, reports=[measured[1], again])


def test_what_was_measured_of_another_file_of_that_name_stands_beside_no_other(
    shipped: tuple[Path, Path], measured: tuple[Path, Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    run, file = shipped
    other = quantize(run, out=tmp_path / file.name, max_drop=0.9).file
    code, stdout, stderr = _cli("compare", other, "--no-latency", "-q", "--measured", measured[1])
    assert (code, stdout) == (2, "")
    assert "was measured of another student.onnx" in stderr
    assert f"distill kit {other} OUT" in stderr
    renamed = Path(shutil.copy(file, tmp_path / "under_another_name.onnx"))
    table = compare([run, renamed], latency=False, reports=[measured[1]])
    assert [row.name for row in table.rows][-2:] == ["under_another_name", "student-board"]
    alone = compare([run], latency=False, reports=[measured[1]])
    assert [row.name for row in alone.rows] == ["student", "student-board"]


def test_costs_that_are_not_the_files_are_refused_beside_it(
    shipped: tuple[Path, Path], measured: tuple[Path, Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    tree, path = json.loads(measured[1].read_text()), tmp_path / "device.json"
    tree["kit"]["params"] = 7
    del tree["seal"]
    path.write_text(json.dumps(tree | {"seal": json_sha256(tree)}))
    with pytest.raises(UsageError, match="states other parameters, GMACs or size than"):
        compare([shipped[1]], latency=False, reports=[path])
    missing = tmp_path / "none.json"
    code, _, stderr = _cli("compare", shipped[0], "--no-latency", "-q", "--measured", missing)
    assert (code, stderr.splitlines()[0]) == (2, f"error: --measured {missing}: no such file")


def test_answers_that_are_no_numbers_are_neither_packed_nor_measured(
    shipped: tuple[Path, Path], bare: Path, tmp_path: Path
) -> None:
    model = onnx.load(shipped[1])
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 4:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(tensor.dims, np.nan, np.float32), tensor.name))
    broken = tmp_path / "broken.onnx"
    onnx.save(model, broken)
    with pytest.raises(RunError, match=r"broken.onnx: its logits are NaN or infinite for 5 of 5 images"):
        write_kit(broken, tmp_path / "none", images=5)
    assert not (tmp_path / "none").exists()
    kit = tmp_path / "kit"
    write_kit(shipped[1], kit, images=5)
    manifest = json.loads((kit / "kit.json").read_text())
    shutil.copy(broken, kit / manifest["file"])  # as if this machine's kernels were wrong
    manifest["sha256"] = sha256_file(broken)
    (kit / "kit.json").write_text(json.dumps(manifest))
    done = _run(bare, kit / "measure.py", "--seconds", "0.1", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"error: {manifest['file']} answers with NaN or infinity on this machine\n"
    assert not (kit / "device.json").exists()


def test_a_machine_without_the_runtime_is_told_what_to_install(shipped: tuple[Path, Path], tmp_path: Path) -> None:
    venv.EnvBuilder(with_pip=False, symlinks=os.name != "nt").create(tmp_path / "empty")
    python = tmp_path / "empty" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    write_kit(shipped[1], tmp_path / "kit", images=5)
    done = _run(python, tmp_path / "kit" / "measure.py", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"error: numpy is not installed: {python} -m pip install numpy onnxruntime\n"


def test_a_kit_that_was_stopped_half_way_is_made_over(shipped: tuple[Path, Path], tmp_path: Path) -> None:
    kit = tmp_path / "kit"
    write_kit(shipped[1], kit, images=5)
    (kit / "kit.json").unlink()  # it is written last
    with pytest.raises(UsageError, match="is there"):
        write_kit(shipped[1], kit, images=5)
    assert write_kit(shipped[1], kit, images=5, overwrite=True).images == 5


def test_a_kit_that_is_overwritten_leaves_nothing_of_the_one_before(shipped: tuple[Path, Path], tmp_path: Path) -> None:
    kit = tmp_path / "kit"
    write_kit(shipped[1], kit, images=5)
    (kit / "device.json").write_text("measured of it")
    (kit / "mine.txt").write_text("mine")
    renamed = Path(shutil.copy(shipped[1], tmp_path / "next.onnx"))
    write_kit(renamed, kit, images=5, overwrite=True)
    names = ["README.txt", "images.npz", "kit.json", "measure.py", "mine.txt", "next.onnx"]
    assert sorted(path.name for path in kit.iterdir()) == names
    write_kit(kit / "next.onnx", kit, images=4, overwrite=True)
    assert sorted(path.name for path in kit.iterdir()) == names


def test_a_kit_does_not_write_into_what_is_there(shipped: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="is there"):
            write_kit(shipped[1], tmp_path, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert write_kit(shipped[1], tmp_path / "kit", images=10_000).images == 60  # as many as there are
    with pytest.raises(UsageError, match="is there"):
        write_kit(shipped[1], tmp_path / "kit")
    assert write_kit(shipped[1], tmp_path / "kit", images=5, overwrite=True).images == 5
