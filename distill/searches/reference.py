"""What a search measures against, on the validation images: the teacher, or a run that is named. Asked once, kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from distill.data.splits import Splits
from distill.errors import UsageError
from distill.evaluation.assess import assess_classifier, split_content
from distill.evaluation.correct import correct
from distill.events import Note, Tell, silent
from distill.files import json_sha256, save_array, write_with
from distill.models.trained import load_trained
from distill.pipeline.cautions import of_reference
from distill.pipeline.source import find_teacher
from distill.recipe import Recipe
from distill.runs import open_run

__all__ = ["AccuracyReference", "accuracy_reference", "require_reference", "teacher_answers"]


@dataclass(frozen=True)
class AccuracyReference:
    """What a loss is measured against.

    Attributes:
        right: Which validation images it answers right, ``(N,)`` bool.
        run: Its folder; None of a file.
    """

    name: str
    right: np.ndarray
    run: Path | None


def teacher_answers(
    recipe: Recipe, splits: Splits, *, kept: Path, runs_dir: Path, device: torch.device, tell: Tell
) -> tuple[str, np.ndarray, Path | None] | None:
    """The teacher's name, its logits on the validation images ``(N, C)``, and its run; None where none can be asked.

    Raises:
        UsageError: It knows other classes.
    """
    teacher = find_teacher(recipe, runs_dir=runs_dir, device=device, classes=splits.dataset.classes)
    if teacher is None:
        return None
    teacher.require_classes(splits.dataset.classes)
    who = json_sha256([teacher.identity.weights, teacher.identity.architecture, split_content(splits, "val")])
    path = kept / f"teacher_val-{who[:16]}.npy"
    run = None if teacher.run is None else teacher.run.path
    if (kept_logits := _kept(path)) is not None:
        return teacher.name, kept_logits, run
    tell(Note(f"asking {teacher.place} about {len(splits.val or ())} validation images"))
    logits = assess_classifier(teacher.trained, splits, recipe.data, split="val").logits
    write_with(path, lambda aside: save_array(aside, logits.astype(np.float32)))
    return teacher.name, logits, run


def _kept(path: Path) -> np.ndarray | None:
    """What was stored; None where it is absent, or damaged: then the teacher is asked again."""
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError):
        return None


def require_reference(
    against: str | None, recipe: Recipe, classes: tuple[str, ...], *, runs_dir: Path, device: torch.device
) -> None:
    """Refuse a search without anything to measure a loss against, before a folder is there.

    Raises:
        UsageError, RunError: As :func:`accuracy_reference`.
    """
    if against is not None:
        run = open_run(against, runs_dir=runs_dir)
        if run.classes != classes:
            raise UsageError(
                f"--against {against}: {run.path} knows other classes than the recipe's data has",
                hint="a loss is measured against a run of the same data",
            )
    elif find_teacher(recipe, runs_dir=runs_dir, device=device, classes=classes) is None:
        raise _nothing_to_ask(recipe)


def _nothing_to_ask(recipe: Recipe) -> UsageError:
    return UsageError(
        f"recipe {recipe.name} has no teacher that can be asked: what is the loss measured against?",
        hint="name a run of the same data: --against RUN",
    )


def accuracy_reference(
    against: str | None,
    teacher: tuple[str, np.ndarray, Path | None] | None,
    recipe: Recipe,
    splits: Splits,
    *,
    runs_dir: Path,
    device: torch.device,
    tell: Tell = silent,
) -> AccuracyReference:
    """What ``--max-drop`` is against.

    Raises:
        UsageError: There is neither a run that was named nor a teacher that can be asked.
    """
    assert splits.val is not None, "checked before"
    if against is not None:
        run = open_run(against, runs_dir=runs_dir)
        for line in of_reference(run, recipe.data, splits):
            tell(Note(line, "warning"))
        answers = assess_classifier(load_trained(run, device=device), splits, recipe.data, split="val")
        return AccuracyReference(run.name, answers.correct, run.path)
    if teacher is None:
        raise _nothing_to_ask(recipe)
    name, logits, path = teacher
    return AccuracyReference(name, correct(logits, np.asarray(splits.val.labels)), path)
