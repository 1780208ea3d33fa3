"""A wheel built from a clean checkout: what is in it, and that it works where the checkout is not."""

from __future__ import annotations

import json
import stat
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from email.parser import Parser
from pathlib import Path

SHIPPED = "distill/recipe/shipped/"
RECIPES = 87


def _names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_top_level(built) -> None:
    tops = {name.split("/")[0] for name in _names(built.wheel)}
    assert tops == {"distill", "teachers", "students", "distill-0.1.0.dist-info"}
    assert built.wheel.name == "distill-0.1.0-py3-none-any.whl"


def test_every_module_is_in_it(built) -> None:
    """A folder without ``__init__.py`` would be left out in silence."""
    packages = ("distill", "teachers", "students")
    modules = {
        str(path.relative_to(built.source)) for package in packages for path in (built.source / package).rglob("*.py")
    }
    assert {name for name in _names(built.wheel) if name.endswith(".py")} == modules
    assert "distill/py.typed" in _names(built.wheel)


def test_nothing_else_is_in_it(built) -> None:
    suffixes = {Path(name).suffix for name in _names(built.wheel) if ".dist-info/" not in name}
    assert suffixes == {".py", ".yaml", ".json", ".typed", ".jinja", ".css", ".js", ".md", ".safetensors", ""}


def test_recipes_are_files_of_the_wheel(built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        recipes = [info for info in archive.infolist() if info.filename.startswith(SHIPPED)]
        assert len(recipes) == RECIPES + 1  # and the schema that each of them names
        for info in recipes:
            assert not stat.S_ISLNK(info.external_attr >> 16)
            source = built.source / "recipes" / info.filename.removeprefix(SHIPPED)
            assert archive.read(info) == source.read_bytes()


def test_the_sdist_holds_recipes_as_files_and_builds_the_same_wheel(built) -> None:
    with tarfile.open(built.sdist) as archive:
        members = archive.getmembers()
        recipes = [member for member in members if SHIPPED in member.name and member.name.endswith(".yaml")]
        assert len(recipes) == RECIPES
        assert all(member.isfile() for member in recipes)
        assert not [member.name for member in members if member.issym() or member.islnk()]
    with zipfile.ZipFile(built.wheel) as one, zipfile.ZipFile(built.wheel_of_sdist) as other:
        assert set(one.namelist()) == set(other.namelist())
        changed = [name for name in one.namelist() if one.read(name) != other.read(name)]
    assert [name for name in changed if not name.endswith("/RECORD")] == []


def test_metadata(built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        metadata = Parser().parsestr(archive.read("distill-0.1.0.dist-info/METADATA").decode())
        entry_points = archive.read("distill-0.1.0.dist-info/entry_points.txt").decode()
    assert metadata["Requires-Python"] == ">=3.11"
    project = tomllib.loads((built.source / "pyproject.toml").read_text())["project"]
    assert set(metadata.get_all("Provides-Extra")) == set(project["optional-dependencies"])
    assert "distill = distill.__main__:main" in entry_points
    assert metadata["License-Expression"] == "MIT AND Apache-2.0"
    assert metadata["Author"] == "the distill authors"
    with zipfile.ZipFile(built.wheel) as archive:
        terms = archive.read("distill-0.1.0.dist-info/licenses/LICENSE").decode()
        other = "dist-info/licenses/distill/released/lite0_cifar100/LICENSE"
        of_weights = archive.read(f"distill-0.1.0.{other}").decode()
    assert terms.startswith("MIT License\n\nCopyright (c) 2026 the distill authors\n")
    assert "Apache License" in of_weights[:200]
    core = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    declared = project["dependencies"]
    assert len(core) == len(declared)
    assert not [line for line in core if "<" in line or "==" in line], "lower bounds only"


# Installed elsewhere


def test_it_runs_from_another_folder(installed: Callable[..., str]) -> None:
    assert installed("-m", "distill", "--version") == "distill 0.1.0\n"
    assert len(json.loads(installed("-m", "distill", "recipe", "list", "--json"))) == RECIPES
    shown = installed("-m", "distill", "recipe", "show", "r18_small")
    assert "name: r18_small" in shown
    assert installed("-m", "distill", "recipe", "check", "r18_small.yaml").endswith("ok, 4,935,242 parameters\n")


def test_python_has_the_same_verbs(installed: Callable[..., str]) -> None:
    code = "from distill import load_recipe, finetune_teacher, train_student, compare; print(load_recipe('r453').name)"
    assert installed("-c", code) == "r453\n"
