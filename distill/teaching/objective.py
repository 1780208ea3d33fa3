"""What the loop is handed: an objective, joined to the teacher it asks, if it asks one."""

from __future__ import annotations

from typing import Protocol

from torch import nn

from distill.data.batches import Batch
from distill.objectives import LossParts, NetworkOutput, Objective

__all__ = ["ObjectiveWithTeacher", "TeacherSource"]


class TeacherSource(Protocol):
    """Where a teacher's answers come from: itself, or a bank."""

    def outputs(self, batch: Batch) -> NetworkOutput:
        """Float32 logits ``(B, C)``, no gradient."""
        ...


class ObjectiveWithTeacher:
    """An objective and its teacher; without one, where the objective asks none.

    Attributes:
        features: The stages of the student that it wants to see.
        auxiliary: What it learns or remembers besides the network; None for most.
    """

    def __init__(self, objective: Objective, source: TeacherSource | None = None) -> None:
        assert not objective.requires or source is not None, "an objective without the teacher it asks"
        self._objective = objective
        self._source = source if objective.requires else None
        self.features = objective.requires.student_features
        self.auxiliary: nn.Module | None = (
            objective if isinstance(objective, nn.Module) and _has_tensors(objective) else None
        )

    def begin_epoch(self, epoch: int) -> None:
        """Weights may depend on how many epochs are done."""
        self._objective.begin_epoch(epoch)

    def __call__(self, student: NetworkOutput, batch: Batch) -> LossParts:
        """The loss of a batch."""
        asked = self._source if self._objective.needs_teacher else None
        return self._objective(student, None if asked is None else asked.outputs(batch), batch)


def _has_tensors(objective: nn.Module) -> bool:
    """Whether it has anything to learn, to remember, or to bring to the run's device: buffers need not be saved."""
    return bool(objective.state_dict()) or next(objective.buffers(), None) is not None
