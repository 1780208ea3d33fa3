"""Where a run's weights are from: cut from another run, the mean of several, a file, started from one, or nothing."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from distill.commands import import_command, prune_command, soup_command
from distill.errors import DistillError, RunError
from distill.runs.find import open_named
from distill.runs.folder import RunFolder
from distill.runs.info import RunInfo

__all__ = [
    "IMPORTED_FROM",
    "SOUP_OF",
    "SOUP_TRIED",
    "ancestors",
    "behind",
    "cut_from",
    "imported_from",
    "made_again",
    "parent_of",
    "soup_of",
    "weights_from",
]

IMPORTED_FROM, SOUP_OF, SOUP_TRIED = "imported_from", "soup_of", "soup_tried"  # of run.json


def cut_from(info: RunInfo) -> str | None:
    """The run whose channels this one has fewer of and no training since; None for one that was trained."""
    source = info.extra.get("pruned_from")
    return source if isinstance(source, str) else None


def soup_of(info: RunInfo) -> tuple[str, ...]:
    """The runs whose weights this one is the mean of, as they were named then; none for one that was trained."""
    return _named(info, SOUP_OF)


def tried_in(info: RunInfo) -> tuple[str, ...]:
    """The runs that those in a mean were chosen from; none where nothing was chosen."""
    return _named(info, SOUP_TRIED)


def _named(info: RunInfo, key: str) -> tuple[str, ...]:
    runs = info.extra.get(key)
    return tuple(each for each in runs if isinstance(each, str)) if isinstance(runs, list) else ()


def imported_from(info: RunInfo) -> str | None:
    """The file whose weights this run holds, which were trained elsewhere; None for one that was trained."""
    origin = info.extra.get(IMPORTED_FROM)
    file = origin.get("file") if isinstance(origin, dict) else None
    return file if isinstance(file, str) else None


def made_again(info: RunInfo) -> tuple[str, str] | None:
    """Of a run that was not trained how its weights were made, in a word, and the command that makes them again.

    Of a cut and an import it is the command's beginning: the run's own has the rest. None for one that was trained.
    """
    if (source := cut_from(info)) is not None:
        return "cut", f"{prune_command(source)} ..."
    if runs := soup_of(info):
        tried = tried_in(info)
        return "averaged", soup_command(tried or runs, name=info.name, greedy=bool(tried))
    if (file := imported_from(info)) is not None:
        return "imported", f"{import_command(file)} ..."
    return None


def parent_of(info: RunInfo) -> str | None:
    """The run whose weights this one began with, as it was named then; None where it began with none."""
    parent = cut_from(info) or info.extra.get("init_from")
    return parent if isinstance(parent, str) else None


def weights_from(info: RunInfo) -> str | None:
    """Where a run's weights are from, in words; None where it began with weights of no run."""
    if runs := soup_of(info):
        return f"the mean of the weights of {', '.join(runs)}; settings are those of {runs[0]}"
    if (source := cut_from(info)) is not None:
        return f"cut from {source}, and not trained since"
    if (file := imported_from(info)) is not None:
        return f"imported from {file}; settings of training are the recipe's, not what was done"
    return None if (parent := parent_of(info)) is None else f"trained on from {parent}"


def teachers_of(info: RunInfo) -> tuple[str, ...]:
    """The runs that taught this one, as they were named then; of several teachers those whose banks it read."""
    about = info.teacher or {}
    banks = about.get("banks")
    paths = [bank.get("path") for bank in banks if isinstance(bank, dict)] if isinstance(banks, list) else []
    homes = [str(Path(path).parent.parent) for path in paths if isinstance(path, str)]
    return tuple(dict.fromkeys(each for each in (about.get("run"), *homes) if isinstance(each, str)))


def behind(run: RunFolder, runs_dir: Path, *, taught: bool = False) -> list[RunFolder]:
    """The runs whose weights went into this one, as far as they are here.

    Args:
        taught: Also those that taught it or one of them, and what is behind these.
    """
    found = {run.path.resolve(): run}
    waiting = [run]
    while waiting:
        each = waiting.pop(0)
        names = (parent_of(each.info), *soup_of(each.info), *(teachers_of(each.info) if taught else ()))
        for name in dict.fromkeys(name for name in names if name is not None):
            with suppress(DistillError):
                before = open_named(name, each, runs_dir=runs_dir)
                if before.path.resolve() not in found:
                    found[before.path.resolve()] = before
                    waiting.append(before)
    return list(found.values())[1:]


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
