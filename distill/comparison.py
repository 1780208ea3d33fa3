"""From run folders to the table: accuracy, size, cost, latency and agreement, teacher and students side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.assess import Assessment, assess
from distill.devices import describe_device, library_versions, resolve_device, set_threads, threads
from distill.errors import DistillError, RunError
from distill.evaluate.agreement import agreement
from distill.evaluate.latency import Latency, measure_latency
from distill.evaluate.spread import mean_std
from distill.recipe import Recipe, dump_recipe, parse_recipe
from distill.report.rows import Comparison, Row
from distill.runs import RunFolder, list_damaged, list_runs, open_run
from distill.teaching.bank import Bank
from distill.train.events import Event, Note, StageProgress
from distill.train.trained import load_trained

__all__ = ["compare"]

_ROLES = ("teacher", "baseline", "student")
_STAGE = "timing"
_RESULT = ("params", "gmacs", "size_mb")


@dataclass(frozen=True)
class _Entry:
    """One finished run and its answers on the test set."""

    run: RunFolder
    recipe: Recipe
    assessment: Assessment
    result: dict[str, Any]
    teacher: dict[str, Any] | None


@dataclass(frozen=True)
class _Reference:
    """A teacher to compare with: here as a run, or as the bank it left."""

    logits: np.ndarray | None
    top1: float


def compare(
    references: Sequence[str | Path] = (),
    *,
    runs_dir: Path = Path("runs"),
    device: str | None = None,
    threads_used: int = 1,
    latency: bool = True,
    seconds_per_model: float = 4.0,
    tell: Callable[[Event], None] = lambda event: None,
) -> Comparison:
    """Compare runs; with no references, the newest finished run of each (recipe, seed) below ``runs_dir``.

    Runs whose recipes differ in ``train.seed`` alone become one row with mean, spread and n. Every model is timed in
    turn, round by round, within ``seconds_per_model``.

    Args:
        threads_used: CPU threads while timing; one compares best between machines.

    Raises:
        RunError: There is nothing to compare, or a named run cannot be read.
    """
    target = resolve_device(device)
    notes: list[str] = []
    entries = [_entry(run, target, tell) for run in _runs(references, runs_dir, notes)]
    groups = _grouped(entries)
    teachers = _teachers(entries, runs_dir, target, notes)
    timings = {}
    if latency:
        set_threads(threads_used)
        timings = _timed(groups, target, seconds_per_model, tell)
    rows = [_row(key, group, teachers, timings.get(key)) for key, group in groups.items()]
    rows += _bank_rows(entries, rows, notes)
    rows.sort(key=lambda row: (_ROLES.index(row.role), row.name))
    notes += _namesake_notes(groups) + _seed_notes(groups)
    counts = [cell.n for cells in timings.values() for cell in cells.values()]
    return Comparison(
        rows=tuple(rows),
        device=describe_device(target),
        threads=threads(),
        versions=library_versions(),
        notes=tuple(notes),
        latency_n=min(counts) if counts else None,
    )


# Which runs


def _runs(references: Sequence[str | Path], runs_dir: Path, notes: list[str]) -> list[RunFolder]:
    if references:
        found = {run.path.resolve(): run for run in (open_run(text, runs_dir=runs_dir) for text in references)}
        return list(found.values())
    newest: dict[tuple[str, int], RunFolder] = {}
    for run in list_runs(runs_dir):
        if run.status != "finished":
            continue
        try:
            recipe = run.recipe()
        except RunError as error:
            notes.append(f"left out: {error.message}")
            continue
        newest[_identity(recipe), recipe.train.seed] = run  # the list ascends: the last one is the newest
    notes += [f"left out: {error.message}" for _, error in list_damaged(runs_dir)]
    if not newest:
        raise RunError(f"no finished run below {runs_dir}", hint="make some: distill quickstart")
    return list(newest.values())


def _identity(recipe: Recipe) -> str:
    """A recipe without its seed, and with its teacher's name for the teacher's folder."""
    teacher = recipe.teacher
    if teacher is not None and teacher.run is not None:
        teacher = teacher.model_copy(update={"run": Path(teacher.run).parent.name, "logits": "auto"})
    train = recipe.train.model_copy(update={"seed": 0})
    return dump_recipe(recipe.model_copy(update={"train": train, "teacher": teacher}))


def _entry(run: RunFolder, device: torch.device, tell: Callable[[Event], None]) -> _Entry:
    tell(Note(f"test set: {run.path}"))
    return _Entry(run, run.recipe(), assess(run, device=device), run.result(*_RESULT), run.info.teacher)


def _grouped(entries: Sequence[_Entry]) -> dict[str, list[_Entry]]:
    groups: dict[str, list[_Entry]] = {}
    for entry in entries:
        groups.setdefault(_identity(entry.recipe), []).append(entry)
    return {key: sorted(group, key=lambda entry: entry.run.path.name) for key, group in groups.items()}


# Teachers, present or not


def _teachers(
    entries: Sequence[_Entry], runs_dir: Path, device: torch.device, notes: list[str]
) -> dict[str, _Reference | None]:
    """A reference for each run: the teacher it learned from, else the only teacher in the table on the same data."""
    shown = [entry for entry in entries if entry.recipe.role == "teacher"]
    found: dict[str, _Reference | None] = {}
    for entry in entries:
        path = str(entry.run.path)
        if entry.recipe.role == "teacher":
            found[path] = None
        elif entry.teacher is not None:
            found[path] = _taught_by(entry, runs_dir, device, notes)
        else:
            same = [t for t in shown if np.array_equal(t.assessment.labels, entry.assessment.labels)]
            found[path] = (
                _Reference(same[0].assessment.logits, same[0].assessment.result.top1) if len(same) == 1 else None
            )
    return found


def _taught_by(entry: _Entry, runs_dir: Path, device: torch.device, notes: list[str]) -> _Reference | None:
    about = entry.teacher or {}
    try:
        if about.get("run") is not None:
            assessment = assess(open_run(about["run"], runs_dir=runs_dir), device=device)
            return _Reference(assessment.logits, assessment.result.top1)
        bank = Bank.open(Path(about["bank"]))
        return _Reference(bank.test_logits(), bank.info.teacher["test_top1"])
    except (DistillError, KeyError) as error:
        message = error.message if isinstance(error, DistillError) else str(error)
        notes.append(f"{entry.run.path}: its teacher cannot be read ({message})")
        return None


def _bank_rows(entries: Sequence[_Entry], rows: Sequence[Row], notes: list[str]) -> list[Row]:
    """Teachers that are not here but left a bank, as they were measured when the bank was built."""
    banks = {
        e.teacher["bank"]: e for e in entries if e.teacher and e.teacher.get("run") is None and "bank" in e.teacher
    }
    found = []
    for path in banks:
        try:
            bank = Bank.open(Path(path))
        except DistillError:
            continue
        about = bank.info.teacher
        if any(row.role == "teacher" and row.name == about["name"] for row in rows):
            continue
        one, many = (about["latency_ms"].get(size, {}) for size in ("1", "32"))
        found.append(
            Row(
                name=about["name"],
                role="teacher",
                run=path,
                dataset=about["dataset"],
                objective=parse_recipe(about["recipe"], source=f"{path}/bank.json").objective.kind,
                seeds=1,
                test_top1=about["test_top1"],
                params=about["params"],
                gmacs=about["gmacs"],
                size_mb=about["size_mb"],
                latency_b1_ms=one.get("median_ms"),
                latency_b1_p90_ms=one.get("p90_ms"),
                latency_b32_ms=many.get("median_ms"),
                images_per_s=32e3 / many["median_ms"] if many else None,
                ece=about["test_ece"],
            )
        )
        notes.append(
            f"{about['name']} is not here: its figures were measured when {path} was built, "
            f"on {about['latency_device']} with {about['threads']} thread(s)"
        )
    return found


# Rows


def _timed(
    groups: Mapping[str, list[_Entry]], device: torch.device, seconds: float, tell: Callable[[Event], None]
) -> dict[str, dict[int, Latency]]:
    loaded = {key: load_trained(group[-1].run, device=device) for key, group in groups.items()}
    shapes = {key: (3, trained.normalize.input_size, trained.normalize.input_size) for key, trained in loaded.items()}
    return measure_latency(
        {key: trained.network for key, trained in loaded.items()},
        shapes,
        device=device,
        seconds_per_model=seconds,
        on_round=lambda done, total: tell(StageProgress(_STAGE, done, total)),
    )


def _row(
    key: str,
    group: Sequence[_Entry],
    teachers: Mapping[str, _Reference | None],
    timing: Mapping[int, Latency] | None,
) -> Row:
    newest = group[-1]
    top1, std = mean_std([entry.assessment.result.top1 for entry in group])
    pairs = [(entry, reference) for entry in group if (reference := teachers[str(entry.run.path)]) is not None]
    row = Row(
        name=newest.recipe.name,
        role=newest.recipe.role,
        run=str(newest.run.path),
        dataset=newest.recipe.data.name,
        objective=newest.recipe.objective.kind,
        seeds=len(group),
        test_top1=top1,
        test_top1_std=std,
        delta_top1=_mean([entry.assessment.result.top1 - reference.top1 for entry, reference in pairs]),
        params=newest.result["params"],
        gmacs=newest.result["gmacs"],
        size_mb=newest.result["size_mb"],
        ece=_mean([entry.assessment.result.ece for entry in group]),
        agreement=_mean([value for pair in pairs if (value := _agreement(*pair)) is not None]),
    )
    if timing is None:
        return row
    one, many = timing[1], timing[32]
    return replace(
        row,
        latency_b1_ms=one.median_ms,
        latency_b1_p90_ms=one.p90_ms,
        latency_b32_ms=many.median_ms,
        images_per_s=many.images_per_s,
    )


def _agreement(entry: _Entry, reference: _Reference) -> float | None:
    ours = entry.assessment.logits
    if reference.logits is None or reference.logits.shape != ours.shape:
        return None
    return agreement(ours, reference.logits)


def _mean(values: Sequence[float]) -> float | None:
    return mean_std(list(values))[0] if values else None


def _namesake_notes(groups: Mapping[str, list[_Entry]]) -> list[str]:
    """Where several rows bear one name, the keys of the recipe in which they differ."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for group in groups.values():
        recipe = group[0].recipe
        by_name.setdefault(recipe.name, []).append(_flat(recipe.model_dump(mode="json", exclude={"train": {"seed"}})))
    notes = []
    for name, trees in by_name.items():
        keys = sorted({key for tree in trees for key in tree if len({str(other.get(key)) for other in trees}) > 1})
        if keys:
            values = (f"{key} ({', '.join(str(tree.get(key)) for tree in trees)})" for key in keys[:4])
            notes.append(f"{name}: {len(trees)} rows, which differ in {', '.join(values)}")
    return notes


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def _seed_notes(groups: Mapping[str, list[_Entry]]) -> list[str]:
    """What the seeds of a row varied, and what they shared; rows that share the same are named together."""
    names: dict[str, list[str]] = {}
    notes = []
    for group in groups.values():
        if len(group) < 2:
            continue
        name = group[0].recipe.name
        teachers = {(entry.teacher or {}).get("run") for entry in group if entry.teacher}
        if len(teachers) > 1:
            notes.append(f"{name}: its seeds learned from {len(teachers)} teacher runs")
        text = _shared(group[0].recipe, count=len(group), one_teacher=len(teachers) == 1)
        names.setdefault(text, []).append(name)
    return [f"{', '.join(dict.fromkeys(of))}: {text}" for text, of in names.items()] + notes


def _shared(recipe: Recipe, *, count: int, one_teacher: bool) -> str:
    shared = [f"the split (seed {recipe.data.split_seed})"]
    if recipe.augment.views != "all":
        shared.append(f"the augmented views (seed {recipe.augment.view_seed})")
    shared += ["the teacher"] if one_teacher else []
    listed = f"{', '.join(shared[:-1])} and {shared[-1]}" if len(shared) > 1 else shared[0]
    return f"{count} seeds vary initial weights, order and dropout; they share {listed}"
