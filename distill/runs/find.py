"""Make, open and list runs: ``runs/<name>/<NNN>``."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from distill.commands import training_verb
from distill.errors import DistillError, NoRunError, RunError, UsageError
from distill.files import expanded, follow_link, has_controls, sync_folder, writing
from distill.references import NAME, check_name, folder_of, run_of
from distill.runs.folder import RunFolder
from distill.runs.lock import owner_is_dead
from distill.runs.released import copy_released, released_networks

__all__ = [
    "begun_runs",
    "check_runs_dir",
    "create_run",
    "list_damaged",
    "list_runs",
    "open_named",
    "open_run",
    "open_runs",
    "place_named",
    "places_named",
    "runs_in",
]

_NUMBER = re.compile(r"[0-9]{3,9}")
_REFERENCE = re.compile(rf"(?P<name>{NAME.pattern})(?:[/\\](?P<number>[0-9]{{1,9}}|latest))?[/\\]?")
_LISTED = 10


def create_run(runs_dir: Path, name: str) -> RunFolder:
    """Make the next folder of a name; two that ask at once get different ones.

    What dead processes left below that name goes: locks, half-written files, runs that never began.

    Raises:
        UsageError: The name cannot be a folder's.
        DistillError: The folder cannot be made.
    """
    parent = runs_dir / check_name(name, "a run")
    for run in _runs_in(parent):
        _clear_dead(run)
    with writing(parent):
        parent.mkdir(parents=True, exist_ok=True)
        number = max((int(path.name) for path in _numbered(parent)), default=0)
        while True:
            number += 1
            path = parent / f"{number:03d}"
            try:
                path.mkdir()
            except FileExistsError:
                continue
            sync_folder(parent)
            return RunFolder(path)


def _clear_dead(run: RunFolder) -> None:
    """Clear away what a process that died left of a run: all of it, where the run never began."""
    if not owner_is_dead(run.path / "lock.json"):
        return
    if not _never_began(run):
        run.clear_dead()
        return
    with contextlib.suppress(DistillError), run.lock():
        shutil.rmtree(run.path, ignore_errors=True)


def check_runs_dir(runs_dir: Path) -> None:
    """Refuse a folder of runs whose path no recipe can name as its teacher's.

    Raises:
        UsageError: It has control characters, or bytes that are no UTF-8.
    """
    if has_controls(str(runs_dir)):
        raise UsageError(
            f"runs cannot be made in {runs_dir}: its path has control characters, or is not UTF-8",
            hint="name another folder: --runs DIR",
        )


def open_run(reference: Any, *, runs_dir: str | Path = Path("runs"), finished: bool = True) -> RunFolder:
    """Find a run by its path, by name (the latest), or by name and number.

    If no run has the name but a network of :func:`released_networks` does, that is copied there and opened.

    Args:
        reference: ``runs/r18_small/003``, ``r18_small`` or ``r18_small/003`` (a path takes precedence), a run folder,
            or what a training function returned.
        runs_dir: Where names are looked up.
        finished: Accept only finished runs. Otherwise a name means its latest run, whatever its state.

    Raises:
        RunError: There is none, it is damaged, or it is not finished; the hint says what to do.
        UsageError: The reference cannot name a run.

    Example:
        >>> open_run("quickstart_student").recipe().train.epochs
        2
    """
    text, runs_dir = run_of(reference), folder_of(runs_dir, "runs_dir")
    folder = _at_path(Path(text if "\0" in text else os.path.expanduser(text)), finished) if text else None
    match = _REFERENCE.fullmatch(text)
    if folder is None and match is not None:
        folder = _by_name(runs_dir, match["name"], match["number"], finished)
    if folder is None and match is not None and match["number"] is None and finished:
        released = copy_released(match["name"], runs_dir)
        folder = None if released is None else RunFolder(released)
    if folder is None:
        raise _not_found(text, runs_dir, name=match["name"] if match else None)
    if folder.never_began():
        raise RunError(f"{folder} is empty: its run was stopped before it began", hint="start it anew")
    folder.read_info()
    if finished and folder.status != "finished":
        raise _unfinished(folder)
    return folder


def open_runs(reference: Any, *, runs_dir: str | Path = Path("runs")) -> list[RunFolder]:
    """The run that a folder or a numbered name means; of a name, or of a folder of runs, all finished ones, in order.

    Raises:
        RunError, UsageError: As :func:`open_run`, of the one run or the latest.
    """
    latest = open_run(reference, runs_dir=runs_dir)
    if _means_one(run_of(reference)):
        return [latest]
    others = [run for run in _runs_in(latest.path.parent) if _problem(run) is None and not _is_trial(run)]
    return [run for run in others if run.status == "finished" and run != latest] + [latest]


def _means_one(text: str) -> bool:
    path = expanded(text)
    match = _REFERENCE.fullmatch(text)
    is_numbered = path.is_dir() and _NUMBER.fullmatch(path.absolute().name) is not None
    has_number = match is not None and match["number"] is not None
    return is_numbered or has_number or path.name == "latest" or os.path.lexists(path / "run.json")


def place_named(name: str, by: RunFolder, *, fits: Callable[[Path], bool] = lambda _: True) -> Path:
    """Where what the record of a run names lies: the first of :func:`places_named` that fits, or else the name itself.

    Args:
        fits: Whether it is what was meant: elsewhere a namesake may lie. It is not asked where the name alone is there.
    """
    there = places_named(name, by)
    if there == [Path(name)]:
        return there[0]
    return next(filter(fits, there), Path(name))


def places_named(name: str, by: RunFolder) -> list[Path]:
    """Where something is that the record of a run may mean by a path: another run, a bank, a file.

    There; below a folder that holds the one who names it, as a relative path was asked from another folder then; and
    beside it, as runs (with banks in them) are in one folder, which may have moved: trials lie deeper in that.
    """
    path = Path(name)
    shortest = 4 if path.parent.name == "banks" else 2
    here = by.path.absolute()
    above = (here.resolve() if ".." in here.parts else here).parents
    places = [path] if path.is_absolute() else [path, *(folder / path for folder in above)]
    ends = (Path(*path.parts[-length:]) for length in range(len(path.parts), shortest - 1, -1))
    places += [folder / end for end in ends if not end.is_absolute() for folder in above]
    # unlike Path's, os.path.exists is False where it is closed
    return [place for place in dict.fromkeys(places) if os.path.exists(place)]


def open_named(name: str, by: RunFolder, *, runs_dir: Path, fits: Callable[[Path], bool] = lambda _: True) -> RunFolder:
    """The finished run that the record of another names; ``fits`` as :func:`place_named` asks it.

    Raises:
        RunError: As :func:`open_run`.
    """
    return open_run(str(place_named(name, by, fits=fits)), runs_dir=runs_dir)


def list_runs(runs_dir: str | Path = Path("runs")) -> list[RunFolder]:
    """List every readable run, by name and number; anything else there is ignored.

    Example:
        >>> sorted({run.path.parent.name for run in list_runs()})[-1]
        'quickstart_teacher_macs50_cut'
    """
    return [folder for folder in _candidates(folder_of(runs_dir, "runs_dir")) if _problem(folder) is None]


def list_damaged(runs_dir: Path) -> list[tuple[RunFolder, RunError]]:
    """Runs that cannot be read, each with what is wrong; an empty folder, of a run that never began, is none."""
    problems = ((folder, _problem(folder)) for folder in _candidates(runs_dir))
    return [(folder, problem) for folder, problem in problems if problem is not None and not _never_began(folder)]


def _problem(folder: RunFolder) -> RunError | None:
    try:
        folder.read_info()
    except RunError as error:
        return error
    return None


def _never_began(folder: RunFolder) -> bool:
    try:
        return folder.never_began()
    except RunError:  # closed to us: that is a problem to report, not a folder to pass over
        return False


def _is_trial(folder: RunFolder) -> bool:
    """Whether a sweep made the run: once, trials lay among the runs of their name."""
    try:
        return "sweep" in folder.read_info().extra and folder.path.parent.name != "trials"
    except RunError:
        return False


def _candidates(runs_dir: Path) -> Iterator[RunFolder]:
    for parent in sorted(_entries(runs_dir)):
        if NAME.fullmatch(parent.name) and parent.is_dir():
            yield from _runs_in(parent)


def runs_in(folder: Path) -> list[RunFolder]:
    """Every readable run of a name, by the folder that holds them, in order; none where it is no such folder."""
    return [run for run in _runs_in(folder) if _problem(run) is None]


def begun_runs(parent: Path) -> list[RunFolder]:
    """The runs in one folder, oldest first, without those that were stopped before they began."""
    return [run for run in _runs_in(parent) if not run.never_began()]


def _runs_in(parent: Path) -> list[RunFolder]:
    return [RunFolder(path) for path in _numbered(parent) if path.is_dir() and not path.is_symlink()]


def _numbered(parent: Path) -> list[Path]:
    return sorted((path for path in _entries(parent) if _NUMBER.fullmatch(path.name)), key=lambda path: int(path.name))


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # missing, no folder, or closed to us
        return []


def _at_path(path: Path, finished: bool) -> RunFolder | None:
    """The run at a path, or the latest in a folder of runs; None if neither is there."""
    if path.name == "latest" and (latest := _latest_of(path.parent, finished)) is not None:
        return latest
    if not os.path.isdir(path):  # unlike Path.is_dir, False for names that no file can have
        return None
    if os.path.lexists(path / "run.json"):
        return RunFolder(path)
    latest = _latest(path, finished)
    is_numbered = _NUMBER.fullmatch(path.absolute().name) is not None
    return RunFolder(path) if latest is None and is_numbered else latest


def _by_name(runs_dir: Path, name: str, number: str | None, finished: bool) -> RunFolder | None:
    if number is None:
        return _latest(runs_dir / name, finished)
    if number == "latest":
        return _latest_of(runs_dir / name, finished)
    path = runs_dir / name / f"{int(number):03d}"
    return RunFolder(path) if path.is_dir() else None


def _latest_of(parent: Path, finished: bool) -> RunFolder | None:
    """What ``latest`` leads to; the last run, where a copy that follows links made a folder of it."""
    link = parent / "latest"
    if (target := follow_link(link)) is not None:
        return RunFolder(target)
    return _latest(parent, finished) if link.is_dir() and not link.is_symlink() else None


def _latest(parent: Path, finished: bool) -> RunFolder | None:
    """The last run of a name, if possible a finished one; None if there is none. A sweep's trial is none."""
    begun = [folder for folder in _runs_in(parent) if not _never_began(folder) and not _is_trial(folder)]
    readable = [folder for folder in begun if _problem(folder) is None]
    done = [folder for folder in readable if folder.status == "finished"] if finished else []
    return next((folders[-1] for folders in (done, readable, begun) if folders), None)


def _unfinished(folder: RunFolder) -> RunError:
    status = folder.status
    if status == "running":
        return RunError(f"{folder} is not finished: {folder.owner} is at work", hint="wait until it has ended")
    state = {"interrupted": "was interrupted", "failed": "has failed"}.get(status, status)
    return RunError(f"{folder} is not finished: it {state}", hint=f"to continue: {folder.resume_command()}")


def _not_found(text: str, runs_dir: Path, *, name: str | None) -> NoRunError:
    from distill.recipe import bundled_recipes, load_recipe  # pydantic, for a mistake alone

    for kind, again in (("sweep", f"; its table again: distill sweep --resume {text}"), ("search", "")):
        if os.path.isfile(Path(text) / f"{kind}.json"):
            return NoRunError(f"{text} is a {kind}, and no run", hint=f"its runs are in {Path(text) / 'trials'}{again}")
    names = sorted(parent.name for parent in _entries(runs_dir) if NAME.fullmatch(parent.name) and _runs_in(parent))
    if name not in names and name in bundled_recipes():
        verb = training_verb(load_recipe(name).role)
        hint = f"it is a recipe, which nobody trained here: distill {verb} --recipe {name}"
        return NoRunError(f"no run {text!r} in {runs_dir}", hint=hint)
    if not names:
        return NoRunError(
            f"no run {text!r}: there are none in {runs_dir}", hint="runs come of distill student and teacher-finetune"
        )
    if name in names:
        runs = _runs_in(runs_dir / name)
        numbers = ", ".join(folder.path.name for folder in runs[-_LISTED:])
        trials = ", trials of a sweep: name one by its folder" if all(map(_is_trial, runs)) else ""
        return NoRunError(f"no run {text!r} in {runs_dir}", hint=f"of {name} there are {numbers}{trials}")
    near = difflib.get_close_matches(name or Path(text).name, [*names, *released_networks()], n=1)
    guess = f"did you mean {near[0]!r}? " if near else ""
    more = ", ..." if len(names) > _LISTED else ""
    return NoRunError(f"no run {text!r} in {runs_dir}", hint=f"{guess}there are {', '.join(names[:_LISTED])}{more}")
