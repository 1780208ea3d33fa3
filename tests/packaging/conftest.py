"""What a clean checkout builds, and an installation of it that cannot see this checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_NOT_SOURCE = (".*", "*.egg-info", "__pycache__")
_PRODUCTS = {"build", "dist", "data", "runs", "sweeps", "searches"}  # at the root: packages have such names, too


@dataclass(frozen=True)
class Built:
    """A source tree, its sdist and wheel, and the wheel that the sdist builds."""

    source: Path
    wheel: Path
    sdist: Path
    wheel_of_sdist: Path


def _files() -> list[Path]:
    """What git would check out, relative to the root; without git, everything that is not a product."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return [Path(os.fsdecode(name)) for name in listed.split(b"\0") if name]


def _no_source(folder: str, names: list[str]) -> set[str]:
    products = _PRODUCTS & {*names} if Path(folder) == ROOT else set()
    return products | shutil.ignore_patterns(*_NOT_SOURCE)(folder, names)


def _checkout(target: Path) -> None:
    files = _files()
    if not files:
        shutil.copytree(ROOT, target, symlinks=True, ignore=_no_source, dirs_exist_ok=True)
    for file in files:
        if os.path.lexists(ROOT / file):  # deleted, and not committed yet
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, target / file, follow_symlinks=False)


def _run(*command: str, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=cwd, env=env, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    source, direct, both = (tmp_path_factory.mktemp(name) for name in ("source", "direct", "both"))
    _checkout(source)
    # no isolation: nothing is downloaded, and setuptools is among what the tests install
    _run("-m", "build", "--no-isolation", "--wheel", "--outdir", str(direct), cwd=source)
    shutil.rmtree(source / "build")
    _run("-m", "build", "--no-isolation", "--outdir", str(both), cwd=source)
    return Built(source, *direct.glob("*.whl"), *both.glob("*.tar.gz"), *both.glob("*.whl"))


@pytest.fixture(scope="session")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """``installed("-m", "distill", ...)``: Python with the wheel installed, in an empty folder elsewhere."""
    target, elsewhere = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("elsewhere")
    pip = ("-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index", "--no-deps")
    _run(*pip, "--target", str(target), str(built.wheel), cwd=elsewhere)

    def run(*command: str) -> str:
        return _run(*command, cwd=elsewhere, env=os.environ | {"PYTHONPATH": str(target)})

    where = (
        "import distill, teachers, students; print(distill.__file__, teachers.__file__, students.__file__, sep='\\n')"
    )
    for file in run("-c", where).split():
        assert Path(file).is_relative_to(target), f"{file} is not what was installed"
    return run
