"""The tour: a teacher, students with and without it, and a file, on images that need no download."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from distill.errors import GateMissedError
from distill.events import Note
from distill.files import json_sha256
from distill.pipeline.context import Options
from distill.pipeline.quantize import quantize
from distill.pipeline.resumable import RunLedger
from distill.pipeline.verbs import finetune_teacher, train_student
from distill.recipe import dump_recipe, load_recipe
from distill.references import count_of
from distill.team.stop import stopping_saves

__all__ = ["QuickstartResult", "quickstart"]

_TEACHER = "quickstart_teacher"
_STUDENTS = ("quickstart_scratch", "quickstart_student")
_DROP = 0.01  # one of its 144 validation images


@dataclass(frozen=True)
class QuickstartResult:
    """What a quickstart leaves.

    Attributes:
        runs: The teacher, then each seed's student from scratch and distilled.
        files: The last student in int8, inside its run's folder; none where that lost too much.
    """

    runs: tuple[Path, ...]
    files: tuple[Path, ...] = ()


def quickstart(*, seeds: int = 3, options: Options | None = None) -> QuickstartResult:
    """Run the whole pipeline on embedded data: a teacher, a student with CE alone, the same with CE + KL, an int8 file.

    Called again after being stopped, it continues where it left off; after finishing, it starts again.

    Args:
        seeds: How many of each student to train: one seed says little about a small difference.

    Example:
        >>> quickstart(seeds=3)  # doctest: +SKIP
    """
    seeds, options = count_of(seeds, "seeds"), options or Options()
    texts = [dump_recipe(load_recipe(name)) for name in (_TEACHER, *_STUDENTS)]
    begun = RunLedger.within(options.runs_dir, f"quickstart-{json_sha256(texts)[:16]}")
    hint, place = "to continue, run the same command again", f"the quickstart in {options.runs_dir}"
    with begun.lock("this quickstart"), stopping_saves(place, hint=hint):
        return _toured(seeds, begun, options)


def _toured(seeds: int, begun: RunLedger, options: Options) -> QuickstartResult:
    teacher = begun.run(0, partial(finetune_teacher, _TEACHER), options)
    runs = [teacher.run]
    for seed in range(seeds):
        for name in _STUDENTS:
            recipe = load_recipe(name, [f"train.seed={seed}"])
            override = None if recipe.teacher is None else str(teacher.run)
            runs.append(begun.run(len(runs), partial(train_student, recipe, teacher=override), options).run)
    made = QuickstartResult(tuple(runs), _shipped(runs[-1], options))
    begun.finish()
    return made


def _shipped(student: Path, options: Options) -> tuple[Path, ...]:
    """An int8 file of the student; its loss is no failure of a tour."""
    out = student / "exports" / f"{student.parent.name}_int8.onnx"
    try:
        return (quantize(student, out=out, max_drop=_DROP, train=False, options=options).file,)
    except GateMissedError as missed:
        options.tell(Note(missed.message, "warning"))
        return ()
