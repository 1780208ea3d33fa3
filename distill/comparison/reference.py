"""What a run is measured against: a teacher's accuracy and its answers on the test set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distill.comparison.entries import EvaluatedModel
from distill.evaluation.assess import DatasetCache
from distill.evaluation.assessment import Assessment
from distill.recipe.schema import DataSpec
from distill.teaching.bank_info import TeacherRecord

__all__ = ["ReferenceTeacher", "of_run"]


@dataclass(frozen=True)
class ReferenceTeacher:
    """A teacher to compare with.

    Attributes:
        name: The run's folder, or the bank's.
        logits: On the test set.
        content: Digest of that test set's images, labels and class names; None where that is not known.
        data: Where those images are; None for a bank's.
        members: Of banks what they tell of their teachers.
    """

    name: str
    logits: np.ndarray | None
    top1: float
    content: str | None
    data: DataSpec | None = None
    members: tuple[TeacherRecord, ...] = ()

    def saw(self, entry: EvaluatedModel, sets: DatasetCache) -> bool:
        """Whether it was tested on the images and classes that ``entry`` was, decoded at whatever size."""
        theirs = entry.assessment.content
        if self.content == theirs:
            return True
        if self.content is None or self.data is None:
            return False
        return sets.is_same_at(self.data, "test", side=entry.recipe.data.side, content=theirs)


def of_run(data: DataSpec, assessment: Assessment) -> ReferenceTeacher:
    """What a run that is here answered."""
    return ReferenceTeacher(assessment.place, assessment.logits, assessment.result.top1, assessment.content, data)
