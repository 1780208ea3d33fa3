"""What ``export --to timm --overwrite`` may replace: nothing of anybody else's, and nothing too early."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from distill.errors import UsageError
from distill.pipeline import export_timm
from distill.pipeline.export_timm import timm_target, write_timm

EXPECTED = np.eye(4, dtype=np.float32)
TRAINED: Any = SimpleNamespace(module=None, normalize=None, classes=())


@pytest.fixture(autouse=True)
def _a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that timm writes in an instant, and that answers as it should."""

    def write(module: object, folder: Path, **_: object) -> None:
        _fill(folder, {"config.json": "new", "model.safetensors": "new"})

    monkeypatch.setattr(export_timm, "write_timm_folder", write)
    monkeypatch.setattr(export_timm, "open_timm_folder", lambda *_: EXPECTED)


def _fill(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def _read(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"config.json": "{}", "notes.txt": "a year's work"}, ": notes.txt"),
        ({"config.json": "{}", "model.safetensors": "w", ".git/HEAD": "ref"}, ": .git"),
        ({"config.json": "{}", "model.safetensors/part": "w"}, ": model.safetensors"),
        ({"config.json": "{}", "a": "", "b": "", "c": "", "d": ""}, ": a, b, c, ..."),
        ({"model.safetensors": "w"}, ""),
    ],
)
def test_a_folder_with_anything_else_is_left_alone(files: dict[str, str], told: str, tmp_path: Path) -> None:
    _fill(folder := tmp_path / "mine", files)
    with pytest.raises(UsageError) as refused:
        timm_target(folder, "tiny", overwrite=True)
    assert refused.value.message == f"{folder} holds something else than a network of timm's{told}"
    with pytest.raises(UsageError):  # it was put there while the network was asked
        write_timm(TRAINED, folder, EXPECTED, EXPECTED, split="val")
    assert _read(folder) == files
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_an_export_is_replaced_also_behind_a_link(tmp_path: Path) -> None:
    _fill(tmp_path / "there", {"config.json": "old", "model.safetensors": "old"})
    (link := tmp_path / "link").symlink_to("there")
    write_timm(TRAINED, timm_target(link, "tiny", overwrite=True), EXPECTED, EXPECTED, split="val")
    assert _read(tmp_path / "there") == {"config.json": "new", "model.safetensors": "new"}
    assert link.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "there"]


def test_the_old_one_stays_where_the_new_one_cannot_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = {"config.json": "old", "model.safetensors": "old"}
    _fill(folder := tmp_path / "mine", old)
    rename = os.rename

    def fails(source: Path, target: Path) -> None:
        if Path(source).name.endswith(".partial"):
            raise PermissionError(f"{target} is open")
        rename(source, target)

    monkeypatch.setattr(export_timm.os, "rename", fails)
    with pytest.raises(PermissionError):
        write_timm(TRAINED, folder, EXPECTED, EXPECTED, split="val")
    assert _read(folder) == old
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
