"""The README's first command as users run it: from a wheel, in an empty folder, with default threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

LIMIT_S = 540  # below what a test may take: a run that stands still ends here, with what it said
TUNING = ("OMP_", "KMP_", "GOMP_", "MKL_", "ONEDNN_", "DNNL_", "TORCH", "PYTHON", "DISTILL_")  # what users do not set

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="where a venv keeps its parts")]


@pytest.fixture(scope="module")
def distill(built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed command: the wheel in an environment of its own, which finds all else where these tests do."""
    venv = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True, timeout=60)
    python = venv / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python), "install", "--quiet"]
    subprocess.run([*pip, "--no-index", "--no-deps", str(built.wheel)], check=True, timeout=120)
    (site,) = venv.glob("lib/python*/site-packages")
    here = sysconfig.get_path("purelib")
    (site / "others.pth").write_text(f"import site; site.addsitedir({here!r})\n")  # behind the wheel, on the path
    code = "import distill, students, teachers; print(distill.__file__, students.__file__, teachers.__file__)"
    found = subprocess.run([python, "-c", code], cwd=venv, env=_plain(), stdout=subprocess.PIPE, check=True, timeout=60)
    assert all(Path(file).is_relative_to(site) for file in found.stdout.decode().split())
    return python.with_name("distill")


def _plain(**more: str) -> dict[str, str]:
    """The environment without what tunes threads and kernels, and without these tests' own settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(TUNING)}
    return kept | {"DISTILL_DEVICE": "cpu", "DISTILL_CACHE": os.environ["DISTILL_CACHE"]} | more


def _run(command: list[str], folder: Path, env: dict[str, str]) -> str:
    said = folder.with_suffix(".err")
    with said.open("wb") as err:
        try:
            done = subprocess.run(
                command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=err, timeout=LIMIT_S, check=False
            )
        except subprocess.TimeoutExpired:
            pytest.fail(f"{' '.join(command)} is not done after {LIMIT_S} s; it said:\n{said.read_text()[-3000:]}")
    assert done.returncode == 0, f"exit code {done.returncode}:\n{said.read_text()[-3000:]}"
    return done.stdout.decode()


def _checked(document: str, seeds: int) -> dict[str, dict[str, object]]:
    rows = {row["name"]: row for row in json.loads(document)["rows"]}
    shipped = rows.pop("quickstart_student_int8", None)  # not in a table of runs alone
    assert shipped is None or shipped["runtime"] == "onnxruntime int8"
    assert set(rows) == {"quickstart_teacher", "quickstart_student", "quickstart_scratch"}
    teacher, student, scratch = (rows[f"quickstart_{role}"] for role in ("teacher", "student", "scratch"))
    assert teacher["test_top1"] > 0.95
    assert student["test_top1"] > 0.7
    assert student["params"] * 40 < teacher["params"]
    assert student["latency_b1_ms"] > 0
    assert (student["seeds"], scratch["seeds"]) == (seeds, seeds)
    return rows


def test_the_first_command_of_the_readme(distill: Path, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    said = _run([str(distill), "quickstart"], folder, _plain())
    assert all(name in said for name in ("quickstart_teacher", "quickstart_student_int8", "quickstart_scratch"))
    assert [path.name for path in folder.iterdir()] == ["runs"]
    document = _run([str(distill), "compare", "--json"], folder, _plain())
    rows = _checked(document, seeds=3)
    again = _run([str(distill), "compare", "--no-latency", "--json"], folder, _plain())
    assert {row["name"]: row["test_top1"] for row in json.loads(again)["rows"]} == {
        name: row["test_top1"] for name, row in rows.items()
    }


def test_the_first_command_with_the_kernels_of_most_cpus(distill: Path, tmp_path: Path) -> None:
    """oneDNN chooses its kernels by the instructions a CPU has; most have AVX2 and no AVX-512. x86 alone heeds it."""
    folder = tmp_path / "empty"
    folder.mkdir()
    command = [str(distill), "quickstart", "--seeds", "1", "--json"]
    _checked(_run(command, folder, _plain(ONEDNN_MAX_CPU_ISA="AVX2")), seeds=1)
