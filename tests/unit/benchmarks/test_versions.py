"""What the benchmark of versions reads and writes; that it installs and runs is its own business."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from benchmarks.versions import End, Outcome, bounds, main, read_report, render

ROOT = Path(__file__).parents[3]


def test_every_dependency_has_its_bound() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = bounds(project)
    assert set(project["dependencies"]) <= {f"{name}>={bound}" for name, bound in found.items()}
    assert {"optuna", "pytest"} <= set(found)
    assert "distill" not in found


def test_the_report_of_the_tests(tmp_path: Path) -> None:
    report = tmp_path / "tests.xml"
    report.write_text(
        '<testsuites><testsuite><testcase classname="tests.a" name="test_one"/>'
        '<testcase classname="tests.a" name="test_two"><skipped message="no GPU"/></testcase>'
        '<testcase classname="tests.b" name="test_three"><failure message="no"/></testcase>'
        '<testcase classname="" name="tests.c"><error message="no"/></testcase></testsuite></testsuites>'
    )
    assert read_report(report) == Outcome(passed=1, skipped=1, failures=("::tests.c", "tests.b::test_three"))


def test_the_page() -> None:
    good = End("oldest", "3.11.9", {"torch": "2.11.0", "huggingface-hub": "0.27.0"}, Outcome(1200, 3, ()))
    bad = End("newest", "3.12.1", {"torch": "2.15.0"}, Outcome(1199, 3, ("tests.a::test_b",)))
    allowed = {"torch": "2.11", "huggingface_hub": "0.27"}
    options = {"date": "2026-01-02", "where": "a CPU"}
    lines = render([good, bad], allowed, tests=["tests/unit", "tests/cli"], **options).splitlines()
    assert "| dependency | bound | oldest, Python 3.11.9 | newest, Python 3.12.1 |" in lines
    assert "| torch | >=2.11 | 2.11.0 | 2.15.0 |" in lines
    assert "| huggingface_hub | >=0.27 | 0.27.0 | - |" in lines
    assert "| tests |  | 1,200 passed, 3 skipped, 0 failed | 1,199 passed, 3 skipped, **1 failed** |" in lines
    assert "- `tests.a::test_b`" in lines
    command = "python -m benchmarks.versions oldest=python3.11 newest=python3.12"
    assert f"{command} --tests tests/unit tests/cli" in lines
    assert command in render([good, bad], allowed, tests=("tests",), **options).splitlines()
    assert "2026-01-02; a CPU." in lines


@pytest.mark.parametrize("end", ["newest", "middle=python3.11", "oldest="])
def test_what_is_no_end_is_a_usage_error(end: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([end])
    assert stopped.value.code == 2
    assert "is neither oldest=PYTHON nor newest=PYTHON" in capsys.readouterr().err
