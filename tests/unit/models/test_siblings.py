"""``students`` and ``teachers`` are common names: a user's own folders of these names stay theirs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from distill.errors import MissingError
from distill.models.siblings import load_sibling

ROOT = Path(__file__).parents[3]


def _python(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("kind", ["pictures", "package", "module"])
def test_a_folder_of_ones_own_shadows_nothing(tmp_path: Path, kind: str) -> None:
    for name in ("students", "teachers"):
        if kind == "module":
            (tmp_path / f"{name}.py").write_text("raise RuntimeError('not distill')\n")
        else:
            (tmp_path / name / "amy").mkdir(parents=True)
        if kind == "package":
            (tmp_path / name / "__init__.py").write_text("raise RuntimeError('not distill')\n")
    done = _python("-m", "distill", "recipe", "check", "lenet_cifar10", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "lenet_cifar10: ok, 62,006 parameters\n"), done.stderr


def test_one_that_is_imported_already_is_named(tmp_path: Path) -> None:
    (tmp_path / "students.py").write_text("AMY = 1\n")
    code = "import students; import distill; print(distill.describe_model(distill.load_recipe('lenet_cifar10')))"
    done = _python("-c", code, folder=tmp_path)
    assert done.returncode == 1
    assert f"the package students that this process has imported is {tmp_path / 'students.py'}, not" in done.stderr


def test_a_package_that_fails_to_import_is_not_left_half_made(tmp_path: Path) -> None:
    (tmp_path / "halfmade").mkdir()
    (tmp_path / "halfmade" / "__init__.py").write_text("A = 1\nraise OSError('no disk')\n")
    with pytest.raises(OSError, match="no disk"):
        load_sibling("halfmade", tmp_path)
    assert "halfmade" not in sys.modules


def test_another_package_of_the_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "__init__.py").touch()
    with pytest.raises(MissingError, match="the package json that this process has imported is") as caught:
        load_sibling("json", tmp_path)
    assert "rename" in caught.value.hint
    load_sibling("nowhere_at_all", tmp_path)  # left to Python's own path
