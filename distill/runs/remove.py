"""What lies in a folder of runs, and taking runs away from it; what other runs stand on stays."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distill.errors import DistillError, RunError, UsageError
from distill.files import writing
from distill.runs.find import list_runs, places_named
from distill.runs.folder import RunFolder
from distill.runs.origin import parent_of, soup_of, teachers_of, tried_in

__all__ = ["RunRow", "check_removable", "describe_runs", "remove_runs"]

_BESIDE = ("sweeps", "searches", "compressed")  # what is in them stands on runs of the folder beside them


@dataclass(frozen=True)
class RunRow:
    """A run in a list.

    Attributes:
        status: ``finished``, ``running``, ``interrupted`` or ``failed``.
        epochs: That are done, of ``of_epochs``; None where its files do not say.
        val_top1: Of the epoch that ships, a fraction; of a run that has not ended, the best so far.
        size_bytes: Of everything in its folder, banks among it.
        needed_by: Runs that learned from it, or began with its weights.
    """

    run: str
    role: str
    status: str
    started: str | None
    epochs: int | None
    of_epochs: int | None
    val_top1: float | None
    size_bytes: int
    needed_by: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """For ``distill runs list --json``."""
        return asdict(self)


def describe_runs(runs_dir: Path, runs: Sequence[RunFolder] | None = None) -> list[RunRow]:
    """Every readable run, by name and number; or ``runs``, wherever they are."""
    chosen = list_runs(runs_dir) if runs is None else runs
    needed = _needed(_who_may_need(chosen, runs_dir))
    return [_row(run, needed.get(_place(run.path), ())) for run in chosen]


def check_removable(runs: Sequence[RunFolder], *, runs_dir: Path) -> None:
    """Refuse to delete what others need.

    Raises:
        UsageError: A run that stays needs one of them.
    """
    going = {_place(run.path) for run in runs}
    for place, users in _needed(_who_may_need(runs, runs_dir)).items():
        staying = [user for user in users if _place(Path(user)) not in going]
        if place in going and staying:
            raise UsageError(
                f"{place} is needed by {staying[0]}" + (f" and {len(staying) - 1} more" if len(staying) > 1 else ""),
                hint="remove those too, or keep it: a student cannot go on, and compare has no teacher, without it",
            )


def remove_runs(runs: Sequence[RunFolder], *, runs_dir: Path) -> list[tuple[Path, int]]:
    """Delete runs with all that is in their folders, and say how many bytes each had.

    Raises:
        UsageError: A run that stays needs one of them; nothing was deleted.
        RunError: A process is at work in one of them; those before it are deleted.
        DistillError: Something cannot be deleted.
    """
    check_removable(runs, runs_dir=runs_dir)
    return [(run.path, _remove(run)) for run in runs]


def _remove(run: RunFolder) -> int:
    size = _size(run.path)
    if run.path.is_symlink():
        raise RunError(f"{run.path} is a link", hint="name the folder that it leads to")
    with run.lock(), writing(run.path):
        # run.json goes first: a deletion that is cut short leaves no run, and not one that looks whole
        (run.path / "run.json").unlink(missing_ok=True)
    with writing(run.path):
        shutil.rmtree(run.path)
    _mend_latest(run.path.parent)
    return size


def _mend_latest(parent: Path) -> None:
    """``latest`` leads to the newest run that is finished; where none is, it goes, and so does an empty folder."""
    link = parent / "latest"
    if os.path.lexists(link) and not link.is_dir():
        link.unlink()
    finished = [run for run in list_runs(parent.parent) if run.path.parent == parent and run.status == "finished"]
    if finished:
        finished[-1].point_latest()
    elif not any(parent.iterdir()):
        parent.rmdir()


def _row(run: RunFolder, needed_by: Sequence[str]) -> RunRow:
    info = run.info
    try:
        metrics = run.metrics()
    except DistillError:
        metrics = []
    try:
        of_epochs = run.recipe().train.epochs
    except DistillError:
        of_epochs = None
    known = _stated(run) or [line["val_top1"] for line in metrics if line.get("val_top1") is not None]
    return RunRow(
        run=str(run.path),
        role=info.role,
        status=run.status,
        started=info.started,
        epochs=len(metrics),
        of_epochs=of_epochs,
        val_top1=max(known, default=None),
        size_bytes=_size(run.path),
        needed_by=tuple(needed_by),
    )


def _stated(run: RunFolder) -> list[float]:
    """Of the epoch that ``train.monitor`` picked, which need not be the most accurate; empty before the run's end."""
    try:
        return [value for value in (run.result().get("val_top1"),) if value is not None]
    except DistillError:
        return []


def _who_may_need(runs: Iterable[RunFolder], runs_dir: Path) -> list[RunFolder]:
    """All runs of the folders that ``runs`` lie in, and those of sweeps, searches and chains beside these folders."""
    folders = {_place(folder): folder for folder in (runs_dir, *(run.path.parent.parent for run in runs))}
    found: dict[Path, RunFolder] = {}
    for folder in folders.values():
        beside = [each for kind in _BESIDE for each in sorted((folder.absolute().parent / kind).glob("*"))]
        below = [each for parent in beside for each in (parent, *sorted(parent.glob("*"))) if each.is_dir()]
        for run in (each for place in (folder, *below) for each in list_runs(place)):
            found.setdefault(_place(run.path), run)
    return list(found.values())


def _needed(runs: Iterable[RunFolder]) -> dict[Path, list[str]]:
    """The places of runs, and which others stand on each."""
    needed: dict[Path, list[str]] = {}
    for run in runs:
        info = run.info
        for name in dict.fromkeys((*teachers_of(info), parent_of(info), *soup_of(info), *tried_in(info))):
            if name is None:
                continue
            places = [Path(name)] if Path(name).is_absolute() and os.path.exists(name) else places_named(name, run)
            for place in {_place(each) for each in places} - {_place(run.path)}:
                needed.setdefault(place, []).append(str(run.path))
    return needed


def _place(path: Path) -> Path:
    return path.resolve()


def _size(folder: Path) -> int:
    total = 0
    for place, folders, names in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        for name in (*links, *names):
            with suppress(OSError):  # gone meanwhile
                total += os.lstat(os.path.join(place, name)).st_size
    return total
