"""Paths as Windows writes them, ``C:\\folder\\file``, in whatever reads paths out of text."""

from __future__ import annotations

import ntpath
import os
import sys
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace
from typing import Any

import pytest

from distill import code
from distill.errors import DistillError
from distill.files import relative
from distill.recipe import dump_recipe, load_recipe, parse_recipe
from distill.runs import open_run

DRIVE = PureWindowsPath("C:/Users/A B/my data")
OWN = """
schema_version: 1
name: own
role: baseline
data: {name: digits}
model: {source: python, name: 'NAME'}
objective: {kind: supervised}
"""


@pytest.mark.parametrize("key", ["data.root", "teacher.run", "model.name"])
@pytest.mark.parametrize("path", [DRIVE, PureWindowsPath("C:/r/003"), PureWindowsPath("//server/share/r"), Path("r")])
def test_a_setting_may_be_such_a_path_and_comes_back_from_yaml(key: str, path: PureWindowsPath) -> None:
    value = f"{path}.py:make" if key == "model.name" else str(path)
    if key == "model.name":
        recipe = parse_recipe(OWN.replace("NAME", "a:b"), source="r.yaml", overrides=[f"model.name={value}"])
    else:
        recipe = load_recipe("r18_small", [f"{key}={value}"])
    section, name = key.split(".")
    assert getattr(getattr(recipe, section), name) == value
    again = parse_recipe(dump_recipe(recipe), source="r.yaml")
    assert getattr(getattr(again, section), name) == value


@pytest.mark.parametrize("key", ["bank", "onnx"])
def test_a_teachers_file_may_be_such_a_path(key: str) -> None:
    value = str(DRIVE / "t.onnx")
    more = ', classes: ["0", "1"], input: {size: 32}' if key == "onnx" else ""
    recipe = load_recipe("quickstart_student", [f"teacher={{{key}: '{value}'{more}}}"])
    assert getattr(recipe.teacher, key) == value


@pytest.mark.parametrize(
    "name", ["C:\\nets\\mine.py:make", "C:/nets/mine.py:Net.small", "nets\\mine.py:make", "a.b:make"]
)
def test_code_is_named_by_such_a_path(name: str) -> None:
    recipe = parse_recipe(OWN.replace("NAME", name), source="r.yaml")
    assert recipe.model.name == name
    home, _, thing = name.rpartition(":")
    with pytest.raises(DistillError) as refused:  # nothing runs without leave; the file is named whole
        code.find_code(name, key="model.name")
    assert "would run code" in refused.value.message
    assert home.rpartition("\\")[2].removesuffix(".py").split(".")[0] in refused.value.message
    assert thing


@pytest.mark.parametrize("name", ["C:\\nets:mine.py:make", "CD:\\mine.py:make", "mine.py", ":make", "mine.py:1st"])
def test_what_names_no_code_is_still_refused(name: str) -> None:
    with pytest.raises(DistillError):
        parse_recipe(OWN.replace("NAME", name), source="r.yaml")


def test_a_recipe_that_is_missing_there_is_told_by_its_path() -> None:
    path = str(DRIVE / "mine.yaml")
    with pytest.raises(DistillError, match="no such file") as missing:
        load_recipe(path)
    assert "my data" in missing.value.message


@pytest.mark.parametrize("reference", ["r18_small\\003", str(DRIVE / "runs" / "r18_small" / "003")])
def test_a_run_that_is_missing_there_is_one_line(reference: str, tmp_path: Path) -> None:
    with pytest.raises(DistillError) as missing:
        open_run(reference, runs_dir=tmp_path)
    assert "\n" not in missing.value.message


def test_there_is_no_way_from_drive_to_drive(monkeypatch: pytest.MonkeyPatch) -> None:
    """``os.path.relpath`` raises there; the whole path stands in the place of the way."""
    monkeypatch.setattr(os, "getcwd", lambda: "C:\\work")
    monkeypatch.setattr(os, "path", ntpath)
    assert relative("C:\\work\\runs\\a", "C:\\work\\sweeps\\s") == "..\\..\\runs\\a"
    assert relative("D:\\runs", "C:\\work") == "D:\\runs"
    assert PureWindowsPath("C:/work", relative("D:\\runs", "C:\\work")) == PureWindowsPath("D:/runs")


def test_a_script_on_another_drive_is_named_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def far(path: Any, start: Any = None) -> str:
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__file__="/far/away.py"))
    monkeypatch.setattr(os.path, "relpath", far)
    thing = type("Net", (), {"__module__": "__main__", "__qualname__": "Net"})
    assert code.import_path_of(thing) == "/far/away.py:Net"
