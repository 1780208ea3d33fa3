"""What a release says of itself agrees with itself, and with what the Makefile can do."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
YAML_FILES = sorted(
    [*(ROOT / ".github").rglob("*.yml"), ROOT / ".pre-commit-config.yaml", ROOT / "CITATION.cff"], key=str
)


@pytest.mark.parametrize("file", YAML_FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_file_is_yaml(file: Path) -> None:
    assert isinstance(yaml.safe_load(file.read_text()), dict)


def test_the_version_is_one() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == PROJECT["version"]
    newest = re.search(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == PROJECT["version"]


def test_the_workflow_calls_what_there_is() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = {name for command in commands for name in re.findall(r"\bmake ([\w-]+)", command)}
    assert asked
    assert asked <= targets
    assert all((ROOT / path).exists() for command in commands for path in re.findall(r"\btests/\w+", command))


@pytest.mark.parametrize("file", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=lambda file: file.name)
def test_a_workflow_is_one_that_could_run(file: Path) -> None:
    """What a checker of workflows would say: jobs and steps are whole, and what they refer to is there."""
    tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert tree[True]  # what YAML 1.1 makes of "on"
    for job in tree["jobs"].values():
        assert set(job) <= {"runs-on", "timeout-minutes", "strategy", "steps", "needs", "if", "env", "permissions"}
        assert set(job.get("needs", [])) <= set(tree["jobs"])
        matrix = job.get("strategy", {}).get("matrix", {})
        assert set(re.findall(r"\$\{\{ matrix\.(\w+) \}\}", yaml.safe_dump(job))) == set(matrix)
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            assert set(step) <= {"uses", "run", "with", "env", "name", "if", "shell", "working-directory"}
            assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step.get("uses", "a/b@v1")), "an action without its version"
        pythons = [step["with"]["python-version"] for step in job["steps"] if "python-version" in step.get("with", {})]
        assert pythons
        assert all(isinstance(each, str) for each in [*pythons, *matrix.get("python", [])]), "3.10 is a number, 3.1"


def test_the_checks_before_a_commit_are_those_of_lint() -> None:
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    ours = {re.sub(r" --force-exclude", "", hook["entry"]).removeprefix("python -m ") for hook in repo["hooks"]}
    lint = re.findall(r'"\$python" -m (.*)', (ROOT / ".ci" / "lint").read_text())
    assert ours == {re.sub(r" (--check|\.)(?= |$)", "", line).strip() for line in lint}


def test_the_pythons_that_are_named_were_tried() -> None:
    named = {each.rpartition(" ")[2] for each in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", each)}
    page = ROOT / "docs" / "results" / "versions.md"
    tried = set(re.findall(r"Python (3\.\d+)", page.read_text())) if page.exists() else set()
    assert named <= tried
