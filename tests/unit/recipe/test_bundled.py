"""Bundled recipes are found by name, from anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill.errors import RecipeError
from distill.recipe import bundled, bundled_recipes, find_recipe, load_recipe


@pytest.fixture
def shelf(tmp_path: Path, student: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package folder with two shipped recipes."""
    shipped = tmp_path / "distill" / "recipe" / "shipped"
    shipped.mkdir(parents=True)
    for name in ("r18_small", "quickstart_student"):
        (shipped / f"{name}.yaml").write_text(student.replace("r18_small", name))
    for stray in (".hidden.yaml", "notes.txt"):
        (shipped / stray).write_text("stray")
    (shipped / "folder.yaml").mkdir()
    monkeypatch.setattr(bundled, "__file__", str(shipped.parent / "bundled.py"))
    return shipped


def test_the_link_leads_to_the_recipes_at_the_top() -> None:
    link = Path(bundled.__file__).parent / "shipped"
    top = Path(bundled.__file__).resolve().parents[2] / "recipes"
    if top.is_dir():  # a source tree; a wheel holds the files themselves
        assert link.is_symlink()
        assert link.readlink() == Path("../../recipes")
        assert set(bundled_recipes()) == {path.stem for path in top.glob("*.yaml")}


def test_names_are_sorted(shelf: Path) -> None:
    assert list(bundled_recipes().items()) == [
        ("quickstart_student", shelf / "quickstart_student.yaml"),
        ("r18_small", shelf / "r18_small.yaml"),
    ]


@pytest.mark.parametrize("given", ["r18_small", "r18_small.yaml", "r18_small.yml"])
def test_with_or_without_its_suffix(shelf: Path, given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_recipe(given) == shelf / "r18_small.yaml"
    assert load_recipe(given).name == "r18_small"
    assert load_recipe(Path(given), ["train.epochs=2"]).train.epochs == 2


@pytest.mark.usefixtures("shelf")
def test_a_file_comes_before_a_bundled_name(tmp_path: Path, student: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r18_small.yaml").write_text(student.replace("r18_small", "mine"))
    assert load_recipe("r18_small.yaml").name == "mine"
    assert load_recipe("r18_small").name == "r18_small"


@pytest.mark.usefixtures("shelf")
def test_a_folder_of_that_name_does_not_hide_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r18_small").mkdir()
    assert load_recipe("r18_small").name == "r18_small"


@pytest.mark.usefixtures("shelf")
@pytest.mark.parametrize("given", ["r18_smal", "r18-small.yaml", "R18_small", "elsewhere/r18_small.yaml"])
def test_a_near_miss(given: str) -> None:
    for find in (load_recipe, find_recipe) if "/" not in given else (load_recipe,):
        with pytest.raises(RecipeError, match=r"\(did you mean 'r18_small'\?\)") as caught:
            find(given)
        assert caught.value.hint == "see them all: distill recipe list"


def test_without_a_link_the_folder_beside_the_package(shelf: Path, tmp_path: Path) -> None:
    shelf.rename(tmp_path / "recipes")
    shelf.write_text("../../recipes")  # how a checkout without links has it
    assert set(bundled_recipes()) == {"quickstart_student", "r18_small"}


def test_no_recipes_at_all(shelf: Path, tmp_path: Path) -> None:
    shelf.rename(tmp_path / "elsewhere")
    assert bundled_recipes() == {}
