"""What makes a run's figures look better than they are, seen before it begins."""

from __future__ import annotations

from distill.teaching.teacher_run import TeacherRun

__all__ = ["cautions"]


def cautions(teacher: TeacherRun | None, *, initial: str | None) -> list[str]:
    """One line for each thing that a reader of the run's figures must know.

    Args:
        teacher: The run that teaches; None where none does, or only its answers are here.
        initial: sha256 of the weights that training begins with; None where it goes on.
    """
    return [] if teacher is None else _same_start(teacher, initial)


def _same_start(teacher: TeacherRun, initial: str | None) -> list[str]:
    if initial is None or teacher.run.info.extra.get("initial_sha256") != initial:
        return []
    return [
        f"it begins with the very weights that its teacher {teacher.run} began with: no independent start "
        "(--set train.seed=N gives it one)"
    ]
