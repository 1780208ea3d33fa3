"""Which runs a comparison is of: those that were named, or the newest of every recipe and seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from distill.comparison.entries import EvaluatedRun, identity, message
from distill.errors import DistillError, RunError
from distill.runs import RunFolder, list_damaged, list_runs, open_runs
from distill.text import counted

__all__ = ["choose", "naming"]

Read = Callable[[RunFolder], EvaluatedRun]


def choose(references: Sequence[str | Path], runs_dir: Path, read: Read, notes: list[str]) -> list[EvaluatedRun]:
    """The runs that ``references`` mean; without any, the newest finished run of each (recipe, data, start, seed).

    A name means all its seeds, a folder that run. Trials of sweeps are compared where they are named.

    Raises:
        RunError: There is nothing to compare.
        DistillError: A named run, or the data of one, cannot be read.
    """
    if references:
        named = {run.path.resolve(): run for text in references for run in _meant(text, runs_dir, notes)}
        return [read(run) for run in named.values()]
    entries, errors = [], []
    for run in _all(runs_dir, notes):
        try:
            entries.append(read(run))
        except (DistillError, OSError) as error:
            errors.append(error)
            hint = error.hint if isinstance(error, DistillError) else None
            notes.append(f"left out: {naming(run, error)}" + (f"; {hint}" if hint else ""))
    if not entries:
        raise errors[0]
    return entries


def _meant(reference: str | Path, runs_dir: Path, notes: list[str]) -> list[RunFolder]:
    """One run, or all seeds of a name: of its latest run's recipe, data and start."""
    runs = open_runs(reference, runs_dir=runs_dir)
    latest = runs[-1]
    if len(runs) == 1:
        return runs
    newest = _newest(runs, notes)
    wanted = identity(latest.recipe(), latest.info)
    kept = [run for (of, _), run in newest.items() if of == wanted]
    if others := len(newest) - len(kept):
        notes.append(
            f"{reference}: the seeds of {latest.path}; {counted(others, 'run')} of that name with another recipe, data "
            "or start left out: name the folders"
        )
    return kept


def _all(runs_dir: Path, notes: list[str]) -> list[RunFolder]:
    finished = [run for run in list_runs(runs_dir) if run.status == "finished"]
    runs = [run for run in finished if "sweep" not in run.info.extra]
    if trials := len(finished) - len(runs):
        notes.append(
            f"left out: {counted(trials, 'trial')} of sweeps: distill sweep --resume NAME shows them, or name a folder"
        )
    newest = list(_newest(runs, notes).values())
    notes += [f"left out: {error.message}" for _, error in list_damaged(runs_dir)]
    if not newest:
        raise RunError(f"no finished run below {runs_dir}", hint="make some: distill quickstart")
    return newest


def _newest(runs: Iterable[RunFolder], notes: list[str]) -> dict[tuple[str, int], RunFolder]:
    """The last of each identity and seed, of runs that ascend; those that cannot be read are left out, with a note."""
    newest: dict[tuple[str, int], RunFolder] = {}
    for run in runs:
        try:
            recipe = run.recipe()
        except RunError as error:
            notes.append(f"left out: {error.message}")
            continue
        newest[identity(recipe, run.info), recipe.train.seed] = run
    return newest


def naming(run: RunFolder, error: Exception) -> str:
    """The error's line, with the run where it names none: of ten runs the data of one may be gone."""
    text = message(error)
    return text if str(run.path) in text else f"{run.path}: {text}"
