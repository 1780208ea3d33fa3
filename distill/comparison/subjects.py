"""What a comparison is of: the runs of each row, exported files, and the teacher that each is measured against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from distill.comparison.entries import EvaluatedModel, EvaluatedRun, grouped
from distill.comparison.files import EvaluatedFile, read_files, with_sources
from distill.comparison.paired_rows import image_sets
from distill.comparison.reference import ReferenceTeacher
from distill.comparison.selection import choose
from distill.comparison.teachers import find_teachers
from distill.evaluation.assess import DatasetCache, assess
from distill.events import Tell
from distill.models.onnx_open import OnnxClassifier
from distill.runs import RunFolder, open_run

__all__ = ["Subjects", "gather"]


@dataclass(frozen=True)
class Subjects:
    """All that answered the test set here.

    Attributes:
        groups: The runs of each row, seeds of one recipe, the newest last; by a key of that recipe.
        files: Exported files, by a key of their own.
        teachers: What each run is measured against, by the run's path.
        images: A name for the test images of each key: equal where they are the same.
    """

    groups: Mapping[str, list[EvaluatedRun]]
    files: Mapping[str, EvaluatedFile]
    teachers: Mapping[str, ReferenceTeacher | None]
    images: Mapping[str, str | None]

    @property
    def entries(self) -> list[EvaluatedRun]:
        """Every run."""
        return [entry for group in self.groups.values() for entry in group]

    @property
    def tested(self) -> dict[str, Sequence[EvaluatedModel]]:
        """What answered, by the ``run`` of its row."""
        tested: dict[str, Sequence[EvaluatedModel]] = {str(group[-1].run.path): group for group in self.groups.values()}
        return tested | {entry.file.place: [entry] for entry in self.files.values()}


def gather(
    references: Sequence[str],
    files: Sequence[OnnxClassifier],
    *,
    runs_dir: Path,
    teacher: str | None,
    device: torch.device,
    data: DatasetCache,
    notes: list[str],
    tell: Tell,
) -> Subjects:
    """Read the answers of all runs and files, or ask for them: each is asked about the test set once, ever.

    Args:
        references: Runs, as :func:`distill.comparison.compare` takes them; none, and no files: the newest of all.
        teacher: A run, which joins the table.

    Raises:
        RunError: There is nothing to compare.
        DistillError: A named run, or the data of one, cannot be read.
    """
    read = partial(_entry, device=device, data=data, tell=tell)
    entries = choose(references, runs_dir, read, notes) if references or not files else []
    wanted = None
    if teacher is not None:
        run = open_run(teacher, runs_dir=runs_dir)
        wanted = run.path.resolve()
        if wanted not in {entry.run.path.resolve() for entry in entries}:
            entries.append(read(run))
    entries, sources = with_sources(files, entries, runs_dir, read, device)
    answered = read_files(files, sources, data, tell)
    groups = grouped(entries, notes)
    teachers = find_teachers(groups, runs_dir, device, data, notes, wanted=wanted)
    images = image_sets(groups | {key: [each] for key, each in answered.items()}, data)
    return Subjects(groups, answered, teachers, images)


def _entry(run: RunFolder, *, device: torch.device, data: DatasetCache, tell: Tell) -> EvaluatedRun:
    assessment = assess(run, device=device, data=data, tell=tell)
    return EvaluatedRun(run, run.info, run.recipe(), assessment, run.figures())
