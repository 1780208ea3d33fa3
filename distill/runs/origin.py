"""Where a run's weights began: cut from another run, started from one, or from nothing."""

from __future__ import annotations

from pathlib import Path

from distill.errors import RunError
from distill.runs.find import open_named
from distill.runs.folder import RunFolder
from distill.runs.info import RunInfo

__all__ = ["ancestors", "cut_from", "parent_of"]


def cut_from(info: RunInfo) -> str | None:
    """The run whose channels this one has fewer of and no training since; None for one that was trained."""
    source = info.extra.get("pruned_from")
    return source if isinstance(source, str) else None


def parent_of(info: RunInfo) -> str | None:
    """The run whose weights this one began with, as it was named then; None where it began with none."""
    parent = cut_from(info) or info.extra.get("init_from")
    return parent if isinstance(parent, str) else None


def ancestors(run: RunFolder, runs_dir: Path) -> tuple[list[RunFolder], str | None]:
    """The runs whose weights this one began with, the oldest first, and one before them that cannot be told.

    That one is named and not here, or comes up again: links of a damaged folder may lead in circles.
    """
    found = [run]
    while (parent := parent_of(found[-1].info)) is not None:
        try:
            before = open_named(parent, found[-1], runs_dir=runs_dir)
        except RunError:
            return found[:0:-1], parent
        if any(before.path.resolve() == each.path.resolve() for each in found):
            return found[:0:-1], parent
        found.append(before)
    return found[:0:-1], None
