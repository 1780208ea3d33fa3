"""A student whose teacher has no run: what the line says to do about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill.errors import RunError
from distill.pipeline.teacher import recipe_taught_by, resolve_teacher
from distill.recipe import Recipe, find_recipe, load_recipe


def _taught_by(name: str) -> Recipe:
    return load_recipe("quickstart_student", overrides=[f"teacher.run={name}"])


def _refusal(recipe: Recipe, runs: Path, override: str | None = None) -> RunError:
    with pytest.raises(RunError) as caught:
        resolve_teacher(recipe, runs_dir=runs, override=override)
    return caught.value


def _some_run(runs: Path) -> None:
    (runs / "other/001").mkdir(parents=True)
    (runs / "other/001/run.json").write_text('{"status": "finished"}')


@pytest.mark.parametrize(
    ("teacher", "recipe"),
    [
        pytest.param("resnet152_cifar10", "resnet152_cifar10", id="bundled"),
        pytest.param("photos_teacher", "photos_teacher.yaml", id="a file here, as recipe new writes it"),
        pytest.param("nobody", "RECIPE", id="a recipe that lies elsewhere"),
    ],
)
@pytest.mark.parametrize("others", [False, True])
def test_the_command_that_trains_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, teacher: str, recipe: str, others: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos_teacher.yaml").touch()
    if others:
        _some_run(tmp_path / "runs")
    error = _refusal(_taught_by(teacher), Path("runs"))
    assert error.message == f"the teacher {teacher} has no run in runs"
    assert error.hint is not None
    assert error.hint.startswith(
        f"train it first: distill teacher-finetune --recipe {recipe}; or name another: --teacher"
    )
    assert ("there are other" in error.hint) == (others and recipe == "RECIPE")
    assert "quickstart" not in error.hint


def test_what_was_typed_wrongly_is_no_teacher_to_come(tmp_path: Path) -> None:
    _some_run(tmp_path)
    error = _refusal(_taught_by("quickstart_teacher"), tmp_path, override="othr")
    assert (error.message, error.hint) == (f"no run 'othr' in {tmp_path}", "did you mean 'other'? there are other")


def test_the_recipe_that_a_teacher_is_for(tmp_path: Path) -> None:
    """A file beside the teacher's, else a bundled one; files of others are passed over."""
    assert recipe_taught_by("quickstart_teacher", beside=tmp_path) == "quickstart_student"
    assert recipe_taught_by("pets_teacher", beside=tmp_path) is None
    text = find_recipe("quickstart_student").read_text()
    (tmp_path / "a.yaml").write_text("pets_teacher: [")
    (tmp_path / "b.yaml").write_bytes(b"\xff pets_teacher")
    (tmp_path / "c.yml").write_text(text.replace("quickstart_teacher", "pets_teacher"))
    (tmp_path / "d.yaml").mkdir()
    assert recipe_taught_by("pets_teacher", beside=tmp_path) == str(tmp_path / "c.yml")
    (tmp_path / "b.yaml").write_text(text)
    assert recipe_taught_by("quickstart_teacher", beside=tmp_path) == str(tmp_path / "b.yaml")
