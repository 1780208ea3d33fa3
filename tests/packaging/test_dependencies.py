"""What is imported is declared, and what is declared is imported."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OURS = {"distill", "teachers", "students", "benchmarks", "docs"}
DISTRIBUTIONS = {  # where a distribution and its module have different names
    "sklearn": "scikit-learn",
    "torch_pruning": "torch-pruning",
    "PIL": "pillow",
    "markdown_it": "markdown-it-py",
    "ruamel": "ruamel.yaml",
    "yaml": "PyYAML",
    "lightning_fabric": "lightning-fabric",
    "modelopt": "nvidia-modelopt",
    "xdist": "pytest-xdist",
}
NOT_IMPORTED = {"pytest-xdist", "pytest-timeout", "build", "setuptools", "ruff", "mypy"}  # run as commands
NOT_IMPORTED |= {"ipykernel"}  # what nbclient starts
NOT_IMPORTED |= {"myst-parser", "furo", "sphinx-copybutton"}  # what Sphinx loads by name (docs/site/conf.py)
NOT_IMPORTED |= {"requests", "uv"}  # what modelopt imports without naming it; a command
WHERE_IT_IS = {"pandas"}  # Comparison.to_pandas: who asks for a data frame has it
NEEDED_BY_TORCH = {"onnxscript"}  # torch.onnx's exporter imports it


def _imported(*folders: str) -> set[str]:
    """Distributions imported anywhere below, functions included."""
    found: set[str] = set()
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    found |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                    found.add(node.module.split(".")[0])
    outside = found - set(sys.stdlib_module_names) - OURS
    return {DISTRIBUTIONS.get(name, name) for name in outside}


def _names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!~\[; ]", requirement, maxsplit=1)[0] for requirement in requirements}


EXTRAS = {extra: _names(lines) - {"distill"} for extra, lines in PROJECT["optional-dependencies"].items()}
CORE = _names(PROJECT["dependencies"])


def test_the_package_imports_what_it_declares_and_no_more() -> None:
    assert (
        _imported("distill", "teachers", "students") - EXTRAS["sweep"] - EXTRAS["prune"] - EXTRAS["hf"] - WHERE_IT_IS
        == CORE - NEEDED_BY_TORCH
    )


def test_the_extras_are_imported() -> None:
    assert EXTRAS["sweep"] | EXTRAS["prune"] | EXTRAS["hf"] <= _imported("distill")


def test_the_tests_import_what_they_declare() -> None:
    assert _imported("tests") <= CORE | EXTRAS["test"] | EXTRAS["sweep"]
    assert EXTRAS["test"] <= _imported("tests") | NOT_IMPORTED


def test_the_tests_bring_what_ci_runs() -> None:
    scripts = "".join((ROOT / ".ci" / name).read_text() for name in ("lint", "test"))
    run = set(re.findall(r"python\S* -m (\w+)", scripts))
    assert {"ruff", "mypy", "pytest"} <= run <= EXTRAS["test"]


def test_the_benchmarks_import_what_they_declare() -> None:
    imported = _imported("benchmarks")
    assert imported <= CORE | EXTRAS["bench"] | EXTRAS["test"]
    assert EXTRAS["bench"] <= imported | NOT_IMPORTED


def test_the_site_imports_what_it_declares() -> None:
    imported = _imported("docs")
    assert imported <= CORE | EXTRAS["docs"]
    assert EXTRAS["docs"] <= imported | NOT_IMPORTED


def test_all_is_every_extra_that_a_user_may_want() -> None:
    (line,) = PROJECT["optional-dependencies"]["all"]
    named = set(re.search(r"\[(.*)\]", line)[1].split(","))
    assert named == set(EXTRAS) - {"all", "bench", "docs", "test"}


def test_bounds_are_lower_bounds() -> None:
    lines = [*PROJECT["dependencies"], *(line for lines in PROJECT["optional-dependencies"].values() for line in lines)]
    assert not [
        line for line in lines if not re.fullmatch(r"[A-Za-z0-9_.-]+(\[[a-z]+\])?>=[0-9.]+|distill\[[a-z,]+\]", line)
    ]
