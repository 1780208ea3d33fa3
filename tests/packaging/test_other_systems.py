"""Systems that are not at hand: what distill does where Unix's own modules and functions are missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNLIKE = Path(__file__).with_name("unlike.py")


def _run(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(
        [sys.executable, UNLIKE, code],
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


def test_every_module_is_imported_where_unix_modules_are_missing(tmp_path: Path) -> None:
    done = _run(IMPORTS, tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 200


def test_the_simulation_takes_away_what_it_says(tmp_path: Path) -> None:
    code = "import os, resource"
    assert "No module named 'resource'" in _run(code, tmp_path).stderr
    code = "import os; held = open('a', 'w'); open('b', 'w').close(); os.replace('b', 'a')"
    assert "it is in use" in _run(code, tmp_path).stderr
    assert "privilege" in _run("import os; os.symlink('a', 'c')", tmp_path).stderr


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
main(sys.argv[2:] or ["quickstart", "--seeds", "1", "--threads", "1"])
"""


@pytest.mark.slow
def test_the_quickstart_ends_with_its_table_there(tmp_path: Path) -> None:
    """No links, no Unix modules, a console of code page 1252, files that cannot be replaced while they are open."""
    done = _run(TOUR, tmp_path, PYTHONIOENCODING="cp1252:strict", PYTHONUTF8="0", LC_ALL="C")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    for name in ("quickstart_teacher", "quickstart_scratch", "quickstart_student"):
        assert name in done.stdout
    again = _run(
        "import sys; from distill.cli import main; main(['compare', '--no-latency'])", tmp_path, PYTHONUTF8="0"
    )
    assert again.returncode == 0, again.stderr
    assert not any(path.is_symlink() for path in (tmp_path / "runs").rglob("*"))
