"""What makes a run's figures look better than they are, seen before it begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distill.data.splits import Splits, load_splits
from distill.errors import DistillError
from distill.files import expanded
from distill.models.onnx_teacher import about_file
from distill.pipeline.provenance import named_banks
from distill.recipe import Recipe, parse_recipe
from distill.recipe.schema import DataSpec
from distill.runs import RunFolder
from distill.runs.origin import behind, imported_from
from distill.teaching.bank import Bank
from distill.teaching.teacher_file import Teacher
from distill.teaching.teacher_run import TeacherRun

__all__ = ["Start", "cautions", "of_origin", "of_reference"]


@dataclass(frozen=True)
class Start:
    """What training begins with.

    Attributes:
        sha256: Of the weights.
        run: Whose they are, where they are a run's.
        runs_dir: Where what is behind that run, or behind the teacher, is looked up.
    """

    sha256: str
    run: RunFolder | None
    runs_dir: Path


def cautions(recipe: Recipe, splits: Splits, teacher: Teacher | None, start: Start) -> list[str]:
    """One line for each thing that a reader of the run's figures must know.

    Args:
        teacher: The run that teaches; None where none does, or only its answers are here.
    """
    lines = [*splits.leaks, *_of_teacher(recipe, splits, teacher, start)]
    if start.run is not None:
        first = f"the run that it begins with, {start.run.path},"
        lines += _of_run(first, start.run, recipe.data, splits) + of_origin(
            [start.run], recipe.data, splits, start.runs_dir
        )
    return lines


def _of_run(who: str, run: RunFolder, ours: DataSpec, splits: Splits) -> list[str]:
    """Whether one run learned from images that judge another, which it went into."""
    if imported_from(run.info) is not None:
        return [f"{who} was trained elsewhere: whether validation or test images taught it is not known"]
    return _saw_validation(who, _Trainee(str(run.path), run.recipe().data, run.info.trained_on), ours, splits)


def of_origin(runs: Sequence[RunFolder], ours: DataSpec, splits: Splits, runs_dir: Path) -> list[str]:
    """Whether runs whose weights went into one of ``runs`` learned from images that judge it; of each once."""
    found: dict[Path, list[str]] = {}
    for run in runs:
        for each in behind(run, runs_dir):
            if (place := each.path.resolve()) not in found:
                found[place] = _of_run(f"{each.path}, whose weights are in {run.path},", each, ours, splits)
    return [line for lines in found.values() for line in lines]


def _of_teacher(recipe: Recipe, splits: Splits, teacher: Teacher | None, start: Start) -> list[str]:
    if recipe.teacher is None:
        return []
    if teacher is None:
        banks = [path for path, _ in named_banks(recipe.teacher)]
        homes = [RunFolder(path.parent.parent) for path in banks]
        here = [run for run in homes if (run.path / "run.json").is_file()]
        behind_them = of_origin(here, recipe.data, splits, start.runs_dir)
        return behind_them + [line for path in banks for line in _of_bank(path, recipe.data, splits)]
    if not isinstance(teacher, TeacherRun):
        return _of_file(teacher.path, recipe.data, splits)
    run = teacher.run
    lines = _same_start(teacher, start.sha256) + of_origin([run], recipe.data, splits, start.runs_dir)
    if imported_from(run.info) is not None:
        return lines + _of_run(f"its teacher {run}", run, recipe.data, splits)
    return lines + _overlaps(_Trainee(str(run), run.recipe().data, run.info.trained_on), recipe.data, splits)


def of_reference(run: RunFolder, ours: DataSpec, splits: Splits) -> list[str]:
    """What a reader must know of a loss against ``run``: whether it was trained on images that judge it."""
    if imported_from(run.info) is not None:
        return _of_run(str(run.path), run, ours, splits)
    count = _seen(_Trainee(str(run.path), run.recipe().data, run.info.trained_on), ours, splits)
    if count == 0:
        return []
    assert splits.val is not None
    return [
        f"{run.path} was trained on {count:,} of the {len(splits.val):,} validation images: it looks better than it "
        "is, and what is measured against it worse"
    ]


def _same_start(teacher: TeacherRun, initial: str) -> list[str]:
    if teacher.run.info.extra.get("initial_sha256") != initial:
        return []
    return [
        f"it begins with the very weights that its teacher {teacher.run} began with: no independent start "
        "(--set train.seed=N gives it one)"
    ]


def _of_bank(path: Path, ours: DataSpec, splits: Splits) -> list[str]:
    """Of a teacher that is not here: its bank has its recipe. One of several lies in its teacher's folder."""
    home = RunFolder(path.parent.parent)
    try:
        if (home.path / "run.json").is_file() and imported_from(home.info) is not None:
            return _of_run(f"its teacher {home.path}", home, ours, splits)
        record = Bank.read(path).info.teacher
        if record is None:
            return []
        theirs = parse_recipe(record.recipe, source=f"{path} (the teacher's recipe in it)").data
    except DistillError:  # whoever opens the bank says it
        return []
    return _overlaps(_Trainee(f"{record.name} of {path}", theirs, record.trained_on), ours, splits)


def _of_file(path: Path, ours: DataSpec, splits: Splits) -> list[str]:
    """Of a file that distill exported, which has its run's recipe; any other does not say what it was trained on."""
    try:
        stated = about_file(path)
        if stated is None:
            return []
        theirs = parse_recipe(stated.recipe, source=f"{path} (the recipe in it)").data
    except DistillError:  # another version's
        return []
    return _overlaps(_Trainee(str(path), theirs, stated.trained_on or None), ours, splits)


@dataclass(frozen=True)
class _Trainee:
    """What learned from images: by what name it is told, from which data, and the fingerprint of those images."""

    place: str
    data: DataSpec
    trained_on: str | None


def _overlaps(teacher: _Trainee, ours: DataSpec, splits: Splits) -> list[str]:
    """Whether images that judge a student may have taught its teacher."""
    who = f"its teacher {teacher.place}"
    return _saw_validation(who, teacher, ours, splits) + _drawn_anew(teacher, ours, splits)


def _saw_validation(who: str, learner: _Trainee, ours: DataSpec, splits: Splits) -> list[str]:
    """Whether it was trained on images that validate what came of it, as with another split of the same data it was."""
    count, theirs = _seen(learner, ours, splits), learner.data
    if count == 0:
        return []
    assert splits.val is not None
    split = f"data.split_seed={theirs.split_seed}, data.val_fraction={theirs.val_fraction:g}"
    return [
        f"{who} was trained on {count:,} of the {len(splits.val):,} images that validate it: "
        f"validation flatters (that one's split: {split})"
    ]


def _drawn_anew(teacher: _Trainee, ours: DataSpec, splits: Splits) -> list[str]:
    """Whether its images were others when it was trained: what judges its student may have taught it."""
    apart = {"unlabelled", "unlabelled_share"}
    if ours.model_dump(exclude=apart) != teacher.data.model_dump(exclude=apart):
        return []  # another size, split or place has another fingerprint, and says nothing
    parts = {"validation": "val", "test": "test"}
    drawn = [name for name, split in parts.items() if splits.is_drawn_anew(split, teacher.trained_on)]
    if not drawn:
        return []
    return [
        f"its teacher {teacher.place} was trained when other images were in {ours.place}: it may have learned from "
        f"some of the {' and '.join(drawn)} images, which are drawn anew from what is there now"
    ]


def _seen(teacher: _Trainee, ours: DataSpec, splits: Splits) -> int:
    """How many of our validation images were among its training images; 0 where that cannot be known.

    Its split is drawn again, on our images; where they are kept at the same size, the fingerprint of what it was
    trained on tells whether they are the same images at all.
    """
    theirs = teacher.data
    split = {"split_seed": theirs.split_seed, "val_fraction": theirs.val_fraction, "limit": theirs.limit}
    ours = ours.model_copy(update={"unlabelled": None})  # nobody validates on those
    drawn = ours.model_copy(update=split)
    if splits.val is None or splits.dataset.val is not None or theirs.name != ours.name or drawn == ours:
        return 0
    if (theirs.code, theirs.options) != (ours.code, ours.options):
        return 0
    if theirs.is_found_out and theirs.side != ours.side and _place(theirs) != _place(ours):
        return 0
    again = load_splits(drawn)
    if theirs.side == ours.side and again.fingerprint != teacher.trained_on:
        return 0
    everything = slice(None)
    return len(np.intersect1d(again.train.base_index(everything), splits.val.base_index(everything)))


def _place(spec: DataSpec) -> Path:
    return expanded(spec.place).resolve()
