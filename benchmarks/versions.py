"""The oldest and the newest version of each dependency that pyproject.toml allows: installed, and the quick tests once.

``python -m benchmarks.versions oldest=python3.11 newest=python3.12 newest=python3.13 [--tests PATH ...] [--out DIR]``

Each is a fresh environment (5.5 GB with PyTorch for CUDA), removed afterwards. Needs uv, which resolves to either end.
Exit code 1 where a test failed: then the bound moves, or the code does.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch

from distill.devices import describe_device

ROOT = Path(__file__).parents[1]
_TESTS = ("tests",)
RESOLUTION = {"oldest": "lowest-direct", "newest": "highest"}  # uv's words
_LIST = (
    "import importlib.metadata as m, json; print(json.dumps({d.name.lower(): d.version for d in m.distributions()}))"
)


@dataclass(frozen=True)
class Outcome:
    """How the quick tests ended; ``failures`` names those that did not pass."""

    passed: int
    skipped: int
    failures: tuple[str, ...]


@dataclass(frozen=True)
class End:
    """One end of what is allowed, on one Python: the version of each dependency, and the tests."""

    which: str
    python: str
    versions: dict[str, str]
    tests: Outcome


def bounds(project: dict[str, Any]) -> dict[str, str]:
    """Dependency -> its bound, of the package and of what its tests and sweeps need."""
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *extras["sweep"], *extras["test"]]
    pairs = (re.fullmatch(r"([\w.-]+)>=([\w.]+)", line) for line in lines)
    return {pair[1]: pair[2] for pair in pairs if pair}


def try_end(which: str, python: str, folder: Path, tests: Sequence[str], workers: int) -> End:
    """Install one end of what is allowed, and run the quick tests in it."""
    place = folder / f"{which}-{Path(python).name}"
    own = place / "bin" / "python"
    _uv("venv", "--seed", "--python", python, str(place))  # with pip, which some tests call
    _uv("pip", "install", "--python", str(own), "--resolution", RESOLUTION[which], "-e", f"{ROOT}[test]")
    listed = json.loads(subprocess.run([own, "-c", _LIST], cwd=folder, stdout=subprocess.PIPE, check=True).stdout)
    version = subprocess.run([own, "--version"], stdout=subprocess.PIPE, check=True).stdout.decode().split()[1]
    outcome = _tests(own, place / "tests.xml", tests, workers)
    return End(which, version, {name.replace("_", "-"): number for name, number in listed.items()}, outcome)


def _uv(*command: str) -> None:
    subprocess.run(["uv", *command], check=True)


def _tests(python: Path, report: Path, tests: Sequence[str], workers: int) -> Outcome:
    options = [*tests, "-q", "-m", "not slow", "-p", "no:cacheprovider", f"--junitxml={report}"]
    several = ["-n", str(workers), "--dist", "loadfile", "--timeout", "600", "--timeout-method", "thread"]
    one_thread = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    subprocess.run([python, "-m", "pytest", *options, *several], cwd=ROOT, env=os.environ | one_thread, check=False)
    return read_report(report)


def read_report(report: Path) -> Outcome:
    """Counts and names from pytest's JUnit file."""
    cases = list(ElementTree.parse(report).iter("testcase"))
    bad = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = sum(case.find("skipped") is not None for case in cases)
    names = tuple(sorted(f"{case.get('classname')}::{case.get('name')}" for case in bad))
    return Outcome(len(cases) - len(bad) - skipped, skipped, names)


def render(ends: Iterable[End], allowed: dict[str, str], *, tests: Sequence[str], date: str, where: str) -> str:
    """The page: a row for each dependency, and what the tests said."""
    ends = list(ends)
    heads = [f"{end.which}, Python {end.python}" for end in ends]
    rows = [
        [name, f">={bound}", *(end.versions.get(name.lower().replace("_", "-"), "-") for end in ends)]
        for name, bound in allowed.items()
    ]
    rows.append(["tests", "", *map(_said, ends)])
    lines = ["# Versions: the oldest and the newest that are allowed", ""]
    lines += ["Each column is one fresh environment: every dependency that distill, its tests and its sweeps name in"]
    lines += [
        "pyproject.toml at that end of what it allows, and what they need in turn as new as it goes with that. In"
    ]
    lines += [f"each, these tests that are not marked slow ran once: {', '.join(f'`{each}`' for each in tests)}.", ""]
    lines += [" | ".join(["| dependency", "bound", *heads]) + " |", "|---" * (2 + len(ends)) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    for end in ends:
        if end.tests.failures:
            lines += ["", f"Failed with the {end.which}, Python {end.python}:", ""]
            lines += [f"- `{name}`" for name in end.tests.failures]
    command = " ".join(f"{end.which}=python{end.python.rpartition('.')[0]}" for end in ends)
    given = "" if tuple(tests) == _TESTS else f" --tests {' '.join(tests)}"
    lines += ["", f"{date}; {where}.", "", "```sh", f"python -m benchmarks.versions {command}{given}", "```"]
    return "\n".join(lines) + "\n"


def _said(end: End) -> str:
    failed = len(end.tests.failures)
    return (
        f"{end.tests.passed:,} passed, {end.tests.skipped} skipped, {f'**{failed} failed**' if failed else '0 failed'}"
    )


def main(arguments: list[str] | None = None) -> int:
    """Try each end that is named, and write the page and its document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.versions", description=__doc__.splitlines()[0])
    parser.add_argument("ends", nargs="+", metavar="oldest|newest=PYTHON", help="which end, on which Python")
    parser.add_argument("--tests", nargs="+", metavar="PATH", default=_TESTS, help="which tests run (all)")
    parser.add_argument("--folder", type=Path, help="where the environments are made (a temporary folder)")
    parser.add_argument("--workers", type=int, default=2, help="processes that run the tests (2)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results", help="where the result is written")
    options = parser.parse_args(arguments)
    pairs = [end.partition("=")[::2] for end in options.ends]
    for which, python in pairs:
        if which not in RESOLUTION or not python:
            parser.error(f"{which!r} is neither oldest=PYTHON nor newest=PYTHON")
    if shutil.which("uv") is None:
        parser.error("uv is not on the path: pip install uv")
    ends: list[End] = []
    allowed = bounds(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"])
    facts = {
        "date": datetime.now(UTC).date().isoformat(),
        "where": f"{describe_device(torch.device('cpu'))}, {sys.platform}",
    }
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="versions-") as folder:
        for which, python in pairs:
            ends.append(try_end(which, python, Path(folder), options.tests, options.workers))
            shutil.rmtree(Path(folder) / f"{which}-{Path(python).name}")
            document = {
                **facts,
                "tests": options.tests,
                "bounds": allowed,
                "ends": [asdict(end) for end in ends],
            }  # written as it comes
            (options.out / "versions.json").write_text(json.dumps(document, indent=1) + "\n")
            (options.out / "versions.md").write_text(render(ends, allowed, tests=options.tests, **facts))
    return int(any(end.tests.failures for end in ends))


if __name__ == "__main__":
    raise SystemExit(main())
