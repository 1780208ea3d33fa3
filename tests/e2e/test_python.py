"""From Python: what names a run, a recipe or a folder is text, a path or the object; mistakes are one line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import distill
from distill.errors import DistillError, MissingError, UsageError
from distill.events import Event, default_listener, listen_by_default
from distill.pipeline import Options, RunResult
from distill.references import listed, run_of
from distill.runs import RunFolder


def test_options_take_text_paths_and_devices(tmp_path: Path) -> None:
    options = Options(runs_dir=str(tmp_path), device=torch.device("cpu"), init_from=RunFolder(tmp_path / "a/001"))
    assert (options.runs_dir, options.device, options.init_from) == (tmp_path, "cpu", str(tmp_path / "a/001"))


def test_a_run_is_named_by_text_path_folder_or_result(teacher_run: RunResult) -> None:
    ways = [str(teacher_run.run), teacher_run.run, RunFolder(teacher_run.run), teacher_run]
    assert {run_of(way) for way in ways} == {str(teacher_run.run)}
    assert {distill.open_run(way).path for way in ways} == {teacher_run.run}
    runs = teacher_run.run.parents[1]
    assert [run.path for run in distill.list_runs(str(runs))] == [run.path for run in distill.list_runs(runs)]


def test_one_alone_or_several() -> None:
    assert listed("name") == ("name",)
    assert listed(Path("a")) == (Path("a"),)
    assert listed(["a", "b"]) == ("a", "b")
    assert listed(RunFolder(Path("a"))) == (RunFolder(Path("a")),)


@pytest.fixture
def compared(teacher_run: RunResult) -> Any:
    return distill.compare(teacher_run, latency=False, device="cpu", runs_dir=str(teacher_run.run.parents[1]))


def test_compare_takes_one_run_and_shows_a_table(teacher_run: RunResult, compared: Any) -> None:
    text = str(compared)
    assert text == repr(compared)
    assert "tiny_teacher" in text
    assert f"{100 * compared.rows[0].test_top1:.2f}" in text
    assert "Comparison(" not in text
    assert "Row(" not in text


def test_compare_in_a_notebook_is_html_with_names_escaped(compared: Any) -> None:
    from dataclasses import replace

    hostile = replace(compared, rows=tuple(replace(row, name="<script>alert(1)</script>") for row in compared.rows))
    html = hostile._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert html.startswith("<pre")


def test_compare_as_a_data_frame(compared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingError, match="pandas"):
        compared.to_pandas()
    made = type("pandas", (), {"DataFrame": staticmethod(lambda rows: rows)})
    monkeypatch.setitem(sys.modules, "pandas", made)
    (row,) = compared.to_pandas()
    assert row["test_top1"] == compared.rows[0].test_top1


def test_recipes_by_name_with_changes_as_text_list_or_dict() -> None:
    ways: list[Any] = ["train.epochs=1", ["train.epochs=1"], {"train.epochs": 1}]
    assert {distill.load_recipe("r18_small", way).train.epochs for way in ways} == {1}
    changed = distill.load_recipe("r18_small", {"model.channels": [8, 8, 16, 16], "name": "no"})
    assert (changed.model.channels, changed.name) == ((8, 8, 16, 16), "no")
    recipe = distill.load_recipe("r18_small")
    assert distill.load_recipe(recipe) is recipe
    assert distill.dump_recipe("r18_small") == distill.dump_recipe(recipe)
    assert distill.describe_model("lenet_cifar10").model.params == 62_006


def test_a_teacher_may_be_a_result_and_a_model_is_asked(
    teacher_run: RunResult, student_recipe: Callable[..., Any], tmp_path: Path
) -> None:
    options = Options(runs_dir=str(tmp_path), device="cpu", threads=1)
    recipe = student_recipe("train.epochs=1", "teacher.logits=live")
    tried = distill.dry_run(recipe, teacher=teacher_run, options=options)
    assert tried.teacher is not None
    stored = distill.dry_run(student_recipe("teacher.logits=bank"), teacher=teacher_run, options=options)
    assert [len(each.notes) for each in (tried, stored)] == [1, 2], "with a bank a run takes less than was tried"
    result = distill.train_student(recipe, teacher=teacher_run, options=options)
    model = distill.load_model(result, device="cpu")
    pixels = torch.zeros((2, 3, model.image_size, model.image_size), dtype=torch.uint8)
    assert model.logits(pixels).shape == (2, len(model.classes))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: Options(devices=0), "devices should be a whole number, 1 or more, got 0"),
        (lambda: Options(threads=0), "threads should be"),
        (lambda: Options(runs_dir=3), "runs_dir: a path is wanted, not int"),
        (lambda: distill.sweep("lenet_cifar10", seeds=0, grid=["optim.lr=0.1"]), "seeds should be"),
        (lambda: distill.quickstart(seeds=0), "seeds should be"),
        (lambda: distill.compare(seconds_per_model=-1), "seconds_per_model should be above 0"),
        (lambda: distill.compare([None]), "a run is wanted, not nothing"),
        (lambda: distill.open_run(17), "a run is wanted, not int"),
        (lambda: distill.load_recipe(distill.load_recipe("r18_small"), "train.epochs=1"), "r18_small is loaded"),
        (lambda: distill.load_recipe("r18_small", {"train.epoks": 1}), "train.epoks"),
        (lambda: distill.train_student("lenet_cifar10", teacher=1.5), "a run is wanted, not float"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    call: Callable[[], Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DistillError) as caught:
        call()
    assert said in caught.value.message
    assert isinstance(caught.value, UsageError)
    assert not list(tmp_path.iterdir())


def test_a_name_is_no_list_of_letters(tmp_path: Path) -> None:
    with pytest.raises(DistillError) as caught:
        distill.compare("nobody", runs_dir=tmp_path)
    assert "nobody" in caught.value.message
    assert len(caught.value.message.splitlines()) == 1


def test_silent_in_a_script_and_heard_where_a_default_listens(tmp_path: Path) -> None:
    heard: list[Event] = []
    assert default_listener() is None
    listen_by_default(heard.append)
    try:
        Options().tell(distill_note := object())
    finally:
        listen_by_default(None)
    assert heard == [distill_note]


@pytest.mark.parametrize(
    ("shell", "listens"), [("N(kernel=1)", "ProgressPrinter"), ("N()", "NoneType"), ("None", "NoneType")]
)
def test_a_notebook_alone_prints_progress_by_default(shell: str, listens: str) -> None:
    """A notebook's shell belongs to a kernel, IPython's in a terminal to none; test_notebook.py has a real one."""
    code = "import sys\nfrom types import SimpleNamespace as N\n"
    code += f"sys.modules['IPython'] = N(get_ipython=lambda: {shell})\n"
    code += "import distill; distill.Options\nfrom distill.events import default_listener\n"
    code += "print(type(default_listener()).__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{listens}\n"
