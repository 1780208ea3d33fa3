"""Systems that are not at hand: what distill does where Unix's own modules and functions are missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNLIKE = Path(__file__).with_name("unlike.py")


def _run(system: str, code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(
        [sys.executable, UNLIKE, system, code],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        encoding="cp1252",
        errors="replace",
        timeout=400,
        check=False,
    )


IMPORTS = """
import importlib, pkgutil
import distill, students, teachers
names = [m.name for p in (distill, students, teachers) for m in pkgutil.walk_packages(p.__path__, p.__name__ + ".")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
print(len(names))
"""


@pytest.mark.parametrize("system", ["windows", "macos"])
def test_every_module_is_imported_there(system: str, tmp_path: Path) -> None:
    done = _run(system, IMPORTS, tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 200


def test_the_simulation_of_windows_takes_away_what_it_says(tmp_path: Path) -> None:
    code = "import os, resource"
    assert "No module named 'resource'" in _run("windows", code, tmp_path).stderr
    code = "import os; held = open('a', 'w'); open('b', 'w').close(); os.replace('b', 'a')"
    assert "it is in use" in _run("windows", code, tmp_path).stderr
    assert "privilege" in _run("windows", "import os; os.symlink('a', 'c')", tmp_path).stderr


def test_the_simulation_of_macos_takes_away_what_it_says(tmp_path: Path) -> None:
    code = """
import multiprocessing, os, sys, torch
from pathlib import Path
print(sys.platform, multiprocessing.get_start_method(), Path("/proc/self").exists(), hasattr(os, "sched_getaffinity"))
from distill.devices import resolve_device
print(resolve_device("auto"))
torch.zeros(2, device="mps")
"""
    done = _run("macos", code, tmp_path, DISTILL_DEVICE="")
    assert done.stdout.split() == ["darwin", "spawn", "False", "False", "mps:0"]
    assert "NotImplementedError: Could not run" in done.stderr


TOUR = """
from distill.pipeline import quickstart as _
import sys
tour = sys.modules["distill.pipeline.quickstart"]
from distill.recipe import Recipe, load_recipe
tour.load_recipe = lambda name, more=(): name if isinstance(name, Recipe) else load_recipe(
    name, [*more, "train.epochs=2", "data.limit=300", "data.test_limit=100"])
verbs = sys.modules["distill.pipeline.verbs"]
verbs.load_recipe = tour.load_recipe
tour._DROP = 0.99
from distill.cli import main
main(sys.argv[3:] or ["quickstart", "--seeds", "1", "--threads", "1"])
"""


@pytest.mark.slow
def test_the_quickstart_ends_with_its_table_there(tmp_path: Path) -> None:
    """No links, no Unix modules, a console of code page 1252, files that cannot be replaced while they are open."""
    done = _run("windows", TOUR, tmp_path, PYTHONIOENCODING="cp1252:strict", PYTHONUTF8="0", LC_ALL="C")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    for name in ("quickstart_teacher", "quickstart_scratch", "quickstart_student"):
        assert name in done.stdout
    again = _command("windows", "compare --no-latency", tmp_path, PYTHONUTF8="0")
    assert again.returncode == 0, again.stderr
    assert not any(path.is_symlink() for path in (tmp_path / "runs").rglob("*"))


@pytest.mark.slow
def test_the_quickstart_ends_with_its_table_on_a_macs_processor(tmp_path: Path) -> None:
    done = _run("macos", TOUR, tmp_path, DISTILL_DEVICE="cpu")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    for name in ("quickstart_teacher", "quickstart_scratch", "quickstart_student"):
        assert name in done.stdout


def _command(system: str, line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return _run(system, f"from distill.cli import main; main({line.split(' ')!r})", folder, **environment)


SHORT = "student --recipe quickstart_scratch --set train.epochs=1 --set data.limit=200"


def test_what_a_macs_gpu_cannot_do_is_one_line_and_the_processor_can(tmp_path: Path) -> None:
    done = _command("macos", SHORT, tmp_path, DISTILL_DEVICE="")
    assert done.returncode == 4, done.stderr
    assert "error: mps cannot run this: it has no aten::" in done.stderr
    assert "hint:  --device cpu" in done.stderr
    assert "Traceback" not in done.stderr
    done = _command("macos", f"{SHORT} --device cpu", tmp_path, DISTILL_DEVICE="")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_two_processes_are_spawned_there(tmp_path: Path) -> None:
    done = _command("macos", f"{SHORT} --device cpu --devices 2", tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_console_of_code_page_1252_is_enough(tmp_path: Path) -> None:
    """Tables with lines and signs that it lacks; nothing is asked of it that ends in an error."""
    code = """
import contextlib
from distill.cli import main
for line in ("recipe list", "recipe schema", "models", "doctor", "runs list", "student --help", "recipe show r222_sgd"):
    with contextlib.suppress(SystemExit):
        main(line.split(" "))
    print("done:", line)
"""
    done = _run("windows", code, tmp_path, PYTHONIOENCODING="cp1252:strict", PYTHONUTF8="0", LC_ALL="C")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("done: ") == 7
    assert "Traceback" not in done.stderr
