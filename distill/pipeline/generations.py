"""Students that teach: one after the other, each the next one's teacher; generations of one network, or assistants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from distill.data.datasets import num_classes
from distill.errors import UsageError
from distill.events import Note
from distill.files import json_sha256, relative
from distill.models import check_network
from distill.pipeline.context import Options
from distill.pipeline.resumable import RunLedger
from distill.pipeline.teacher import resolve_teacher, with_folders
from distill.pipeline.verbs import train_student
from distill.recipe import Recipe, dump_recipe, load_recipe
from distill.references import LONGEST_NAME, count_of
from distill.results.runs import RunResult

__all__ = ["Generations", "train_generations"]


@dataclass(frozen=True)
class Generations:
    """What each student of a chain came to, in the order in which they learned."""

    runs: tuple[RunResult, ...]


def train_generations(
    recipes: Sequence[Recipe | str | Path],
    *,
    generations: int = 1,
    teacher: Any = None,
    options: Options | None = None,
) -> Generations:
    """Train students in sequence: the first learns from its teacher, each later one from the one before.

    Called again with the same recipes and teacher, a stopped chain continues where it left off; a finished one
    starts again.

    Args:
        recipes: One or several (teacher assistants, arXiv:1902.03393), the largest student first.
        generations: How many times to train the last one (born-again networks, arXiv:1805.04770). Generation g is
            called ``<name>_gen<g>``; its ``train.seed`` is g - 1 higher, so it does not start from its teacher's
            initial weights.
        teacher: A run that replaces the first recipe's ``teacher.run``, or several.

    Raises:
        UsageError: A recipe uses no teacher, or is not a student's.
        BudgetError: A network exceeds its parameter limit; nothing is trained.

    Example:
        >>> recipe = load_recipe("quickstart_student", ["name=again", "train.epochs=1"])
        >>> chain = train_generations([recipe], generations=2)
        >>> [each.run.parent.name for each in chain.runs]
        ['again', 'again_gen2']
    """
    options = options or Options()
    steps = _steps([load_recipe(each) for each in recipes], count_of(generations, "generations"))
    first = resolve_teacher(steps[0], runs_dir=options.runs_dir, override=teacher)
    steps = [first, *steps[1:]]
    for step in steps:
        _check(step)
    begun = RunLedger.within(options.runs_dir, _key(steps, options.runs_dir))
    with begun.lock("these generations"):
        return _train(steps, begun, options)


def _key(steps: Sequence[Recipe], runs_dir: Path) -> str:
    """Of the same recipes and teacher the same, from whatever folder one asks."""
    first, *others = steps
    assert first.teacher is not None, "checked before"
    teacher = with_folders(first.teacher, lambda run: relative(run, runs_dir))
    if teacher.run is not None:
        teacher = teacher.model_copy(update={"run": relative(teacher.run, runs_dir)})
    first = first.model_copy(update={"teacher": teacher})
    return json_sha256([dump_recipe(step) for step in (first, *others)])[:16]


def _steps(recipes: Sequence[Recipe], generations: int) -> list[Recipe]:
    if not recipes:
        raise UsageError("no recipe to train", hint="name one or several")
    steps = list(recipes)
    last = recipes[-1]
    for number in range(2, generations + 1):
        name = f"{last.name}_gen{number}"
        if len(name) > LONGEST_NAME:
            raise UsageError(f"{name} is longer than a recipe's name may be", hint="--set name=SHORTER")
        train = last.train.model_copy(update={"seed": last.train.seed + number - 1})
        steps.append(last.model_copy(update={"name": name, "train": train}))
    return steps


def _check(step: Recipe) -> None:
    if step.role != "student" or step.teacher is None:
        raise UsageError(
            f"recipe {step.name} learns from no teacher (role {step.role}, objective {step.objective.kind})",
            hint="a chain is of students: objective kd, and a teacher: section that the one before replaces",
        )
    if not step.data.is_found_out:  # a folder's classes are counted on disk, when its turn comes
        check_network(step, num_classes(step.data))


def _train(steps: Sequence[Recipe], begun: RunLedger, options: Options) -> Generations:
    results: list[RunResult] = []
    for number, step in enumerate(steps):
        teacher = str(results[-1].run) if results else None
        if len(steps) > 1:
            options.tell(Note(f"student {number + 1} of {len(steps)}: {step.name}"))
        results.append(begun.run(number, partial(train_student, step, teacher=teacher), options))
    begun.finish()
    return Generations(tuple(results))
