"""Whom a recipe means by its teacher: the run behind a name, or behind each of several."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from distill.commands import training_verb
from distill.errors import DistillError, NoRunError, RunError, UsageError
from distill.recipe import Recipe, bundled_recipes, load_recipe
from distill.recipe.bundled import SUFFIXES
from distill.recipe.schema import BankSpec, TeacherSpec
from distill.references import listed, run_of
from distill.runs import RunFolder, list_runs, open_run
from distill.teaching.recorded import former_bank, former_file, former_teacher

__all__ = [
    "asks_none",
    "recipe_taught_by",
    "resolve_teacher",
    "taught_as_before",
    "taught_by",
    "teachers_named",
    "with_folders",
]


def resolve_teacher(recipe: Recipe, *, runs_dir: Path, override: Any) -> Recipe:
    """The recipe with its teacher, or each of its teachers, as a run folder's path (a bank's stays as it is).

    Args:
        override: A run, or several, in the place of the recipe's.

    Raises:
        UsageError: The recipe has no teacher to override, or says of it what does not go with the new one.
        RunError: There is no such finished run.
    """
    named = teachers_named(override)
    if recipe.teacher is None:
        if named:
            raise asks_none(recipe, named)
        return recipe
    recipe = taught_by(recipe, named)
    teacher = recipe.teacher
    assert teacher is not None
    if teacher.run is not None:
        run = _open_teacher(teacher.run, runs_dir, typed=bool(named))
        teacher = teacher.model_copy(update={"run": str(run.path)})
    teacher = with_folders(teacher, lambda run: str(_open_teacher(run, runs_dir, typed=bool(named)).path))
    return recipe.model_copy(update={"teacher": teacher})


def teachers_named(override: Any) -> tuple[str, ...]:
    """What ``--teacher`` named, or a Python caller gave: one run, several, an ONNX file; nothing for None.

    Raises:
        UsageError: It is nothing that names a run.
    """
    return () if override is None else tuple(run_of(each) for each in listed(override))


def asks_none(recipe: Recipe, named: Sequence[str]) -> UsageError:
    """That teachers were named for a recipe that learns from none."""
    return UsageError(
        f"{_typed(named)}: recipe {recipe.name} asks no teacher (objective {recipe.objective.kind})",
        hint="drop --teacher, or use a recipe with objective kd",
    )


def taught_by(recipe: Recipe, named: Sequence[str]) -> Recipe:
    """The recipe with the teacher that was named, or the several, in the place of its own.

    One that asks no teacher stays as it is, and so does any where none was named.

    Raises:
        UsageError: The recipe says of its teacher what does not go with the new one.
    """
    teacher = recipe.teacher
    if teacher is None or not named:
        return recipe
    files = [name for name in named if name.lower().endswith(".onnx")]
    if files and len(named) > 1:
        raise UsageError(f"{_typed(named)}: several teachers are runs", hint=f"{files[0]} teaches alone")
    one = named[0] if len(named) == 1 else None
    changes: dict[str, Any] = {"onnx": one, "run": None} if files else {"run": one, "onnx": None}
    if teacher.onnx is None or not files:
        changes |= {"input": None, "classes": ()}  # they describe the file that the recipe names
    banks = () if one is not None else tuple(BankSpec(run=name) for name in named)
    teacher = teacher.model_copy(update=changes | {"bank": None, "banks": banks})
    try:
        teacher = TeacherSpec.model_validate(teacher.model_dump(exclude_unset=True))
        changed = recipe.model_copy(update={"teacher": teacher})
        is_run = one is not None and not files
        return changed if is_run else Recipe.model_validate(changed.model_dump(exclude_unset=True))
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        where = "" if reason.startswith(("objective", "teacher.")) else "teacher."
        raise UsageError(f"{_typed(named)}: the recipe's {where}{reason}") from error


def _typed(named: Sequence[str]) -> str:
    return " ".join(f"--teacher {name}" for name in named)


def with_folders(teacher: TeacherSpec, folder: Callable[[str], str]) -> TeacherSpec:
    """Several teachers with the folder of each run in the place of what names it; banks that are named stay.

    Args:
        folder: Of a run, by what names it.

    Raises:
        UsageError: Two of them are one.
    """
    banks = [bank if bank.run is None else bank.model_copy(update={"run": folder(bank.run)}) for bank in teacher.banks]
    places = [Path(bank.run).resolve() for bank in banks if bank.run is not None]
    twice = next((bank.run for bank in banks if bank.run and places.count(Path(bank.run).resolve()) > 1), None)
    if twice is not None:
        raise UsageError(
            f"{twice} is named twice among the teachers", hint="name each once: weights say what it counts"
        )
    return teacher.model_copy(update={"banks": tuple(banks)})


def taught_as_before(run: RunFolder) -> Recipe:
    """A run's recipe with the teacher it had, or the banks, where they are now; wherever a name points today."""
    recipe = run.recipe()
    if (teacher := recipe.teacher) is None:
        return recipe
    about = run.info.teacher or {}
    weights = [each.get("sha256") for each in about.get("banks") or [about]]

    def now(written: str, place: Path) -> str:
        return written if place == Path(written) else str(place)  # as it is written, where that is still right

    def bank(written: str, number: int = 0) -> str:
        return now(written, former_bank(written, run, sha256=weights[number] if number < len(weights) else None))

    found: dict[str, Any] = {}
    if teacher.run is not None and (place := former_teacher(run)) is not None:
        found["run"] = now(teacher.run, place)
    if teacher.onnx is not None:
        found["onnx"] = now(teacher.onnx, former_file(teacher.onnx, run))
    if teacher.bank is not None:
        found["bank"] = bank(teacher.bank)
    found["banks"] = tuple(
        each if each.path is None else each.model_copy(update={"path": bank(each.path, number)})
        for number, each in enumerate(teacher.banks)
    )
    return recipe.model_copy(update={"teacher": teacher.model_copy(update=found)})


def _open_teacher(reference: str, runs_dir: Path, *, typed: bool) -> RunFolder:
    """The teacher's run. Where a recipe's teacher is not trained yet the hint says how: that is the usual reason."""
    try:
        return open_run(reference, runs_dir=runs_dir)
    except RunError as error:
        name, _, number = reference.partition("/")
        is_name = Path(name).name == name and (number.isdigit() or number == "")
        command = _training(name) if is_name else None
        if is_name and (command or not typed) and not (runs_dir / reference).exists():
            known = "" if command or not list_runs(runs_dir) else f" ({error.hint})"
            how = command or "distill teacher-finetune --recipe RECIPE"
            hint = f"train it first: {how}; or name another: --teacher RUN{known}"
            raise NoRunError(f"the teacher {reference} has no run in {runs_dir}", hint=hint) from error
        if not is_name and not typed:
            raise RunError(f"its teacher: {error.message}", hint=error.hint) from error
        raise


def _training(name: str) -> str | None:
    """The command that trains what a recipe of that name is of; None where there is no such recipe."""
    file = Path(f"{name}.yaml")  # as ``recipe new`` writes it, beside the student's
    if name in bundled_recipes():
        return f"distill {training_verb(load_recipe(name).role)} --recipe {name}"
    return f"distill teacher-finetune --recipe {shlex.quote(str(file))}" if file.is_file() else None


def recipe_taught_by(name: str, *, beside: Path) -> str | None:
    """A recipe whose teacher is a run of that name: a file of the folder ``beside``, or a bundled one."""
    here = {str(path): path for path in sorted(beside.glob("*.y*ml")) if path.suffix in SUFFIXES and path.is_file()}
    for said, path in (here | bundled_recipes()).items():
        try:
            teacher = load_recipe(path).teacher if name in path.read_text(encoding="utf-8") else None
        except (DistillError, OSError, UnicodeDecodeError):  # somebody else's file
            continue
        if teacher is not None and teacher.run == name:
            return said
    return None
