"""Rows of a comparison with all that their folders hold, as the page tells it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from distill.commands import rerun_command
from distill.comparison.entries import EvaluatedModel, EvaluatedRun
from distill.comparison.files import EvaluatedFile
from distill.errors import DistillError
from distill.evaluation.stored import evaluation_of_file, read_evaluation
from distill.pipeline.provenance import teachers_weights
from distill.recipe import Recipe, compared_settings, dump_recipe
from distill.report.lines import loss_parts
from distill.report.page.content import Curve, Member, Provenance
from distill.results.evaluations import Evaluation
from distill.results.roles import ROLES
from distill.results.rows import Row, row_labels
from distill.runs import RunFolder
from distill.runs.journal import is_number
from distill.runs.origin import behind, cut_from, imported_from, made_again, soup_of, weights_from
from distill.teaching.identity import read_identity

__all__ = ["differences", "found_of", "members", "repeating", "repeating_before", "settings_of"]

_SHAPES = {"teacher": "square", "baseline": "triangle", "student": "circle"}
_LOOKS = 7  # colours of the page; the first three are the roles'
_NOTHING = {"", "null", "[]"}  # a section that is not there, and one that says nothing
_NOT_COMPARED = ("name", "schema_version")


def members(rows: Sequence[Row], tested: Mapping[str, Sequence[EvaluatedModel]]) -> tuple[Member, ...]:
    """Every row with its runs' curves, calibration, recipe and origin."""
    groups = {row.run: tested.get(row.run, ()) for row in rows}
    looks = _looks(rows, groups)
    return tuple(
        _member(row, groups[row.run], label=label, look=looks[row.run])
        for row, label in zip(rows, row_labels(rows), strict=True)
    )


def _looks(rows: Sequence[Row], groups: Mapping[str, Sequence[EvaluatedModel]]) -> dict[str, int]:
    """A colour for each row: the first of a role has the role's, a file its run's."""
    looks: dict[str, int] = {}
    own = {role: place for place, role in enumerate(ROLES)}
    free = len(own)
    for row in rows:
        if row.source_run is not None:
            continue
        if row.role in own:
            looks[row.run] = own.pop(row.role)
        else:
            looks[row.run], free = free, free + 1
            free += len(ROLES) if free % _LOOKS == 0 else 0  # a colour's second turn is dashed: no role's colour again
    places = {
        entry.run.path.resolve(): looks[run]
        for run, group in groups.items()
        for entry in group
        if isinstance(entry, EvaluatedRun) and run in looks
    }
    for row in rows:
        if row.source_run is not None:
            looks[row.run] = places.get(Path(row.source_run).resolve(), free)
    return looks


def _member(row: Row, group: Sequence[EvaluatedModel], *, label: str, look: int) -> Member:
    hollow = row.source_run is not None or row.is_file
    member = Member(row, label, look, _SHAPES.get(row.role, "diamond"), hollow)
    if not group:
        return member
    newest = group[-1]
    stored = found_of(newest)
    member = replace(
        member,
        reliability=newest.assessment.reliability,
        temperature=stored.temperature if stored else None,
        calibrated=stored.calibrated if stored else None,
        risk_coverage=newest.assessment.risk_coverage,
        corruptions=stored.corruptions if stored else None,
    )
    if not isinstance(newest, EvaluatedRun):
        return replace(member, provenance=tuple(_of_file(each) for each in group if isinstance(each, EvaluatedFile)))
    runs = [each for each in group if isinstance(each, EvaluatedRun)]
    curves, parts = _curves(runs)
    return replace(
        member,
        curves=curves,
        parts=parts,
        recipe=dump_recipe(newest.recipe),
        settings=settings_of(newest.recipe),
        provenance=tuple(map(_of_run, runs)),
    )


def found_of(entry: EvaluatedModel) -> Evaluation | None:
    """What was found of a run or a file, and kept; None of a teacher that left its bank alone."""
    if isinstance(entry, EvaluatedFile):
        return read_evaluation(evaluation_of_file(entry.file.path))
    return read_evaluation(entry.run.evaluation) if isinstance(entry, EvaluatedRun) else None


def _curves(runs: Sequence[EvaluatedRun]) -> tuple[dict[str, tuple[Curve, ...]], tuple[str, ...]]:
    """All seeds' values by key, and which keys are parts of the loss. Damaged metrics draw nothing."""
    found: dict[str, list[Curve]] = {}
    parts: dict[str, None] = {}
    for entry in runs:
        lines: list[dict[str, Any]] = []
        with suppress(DistillError):
            lines = entry.run.metrics()
        lines = [line for line in lines if is_number(line.get("epoch"))]
        parts |= dict.fromkeys(f"train_{part}" for line in lines for part in loss_parts(line))
        for key in dict.fromkeys(key for line in lines for key in line if key != "epoch"):
            points = tuple((int(line["epoch"]), float(line[key])) for line in lines if line.get(key) is not None)
            if points:
                found.setdefault(key, []).append(Curve(entry.recipe.train.seed, points))
    return {key: tuple(curves) for key, curves in found.items()}, tuple(parts)


# Recipes


def settings_of(recipe: Recipe) -> dict[str, str]:
    """A recipe by the names that ``--set`` takes, without what seeds of one recipe may differ in."""
    tree = compared_settings(recipe)
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in tree.items()}


def differences(shown: Sequence[Member]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Settings in which recipes differ, each with its value in every one; empty where a recipe lacks it."""
    trees = [member.settings for member in shown if member.settings]
    keys = dict.fromkeys(key for tree in trees for key in tree if key not in _NOT_COMPARED)
    found = ((key, tuple(tree.get(key, "") for tree in trees)) for key in keys)
    return tuple((key, values) for key, values in found if len({*values}) > 1 and len({*values} - _NOTHING) > 0)


# Where it came from


def _of_run(entry: EvaluatedRun) -> Provenance:
    info, data = entry.info, entry.info.data or {}
    seconds = weights = None
    with suppress(DistillError):
        seconds = entry.run.result("seconds")["seconds"]
    with suppress(DistillError):
        weights = read_identity(entry.run, device=torch.device("cpu")).weights
    git = info.git or {}
    commit = f"{git['commit']}{' and changes' if git.get('dirty') else ''}" if git.get("commit") else None
    return Provenance(
        place=str(entry.run.path),
        seed=entry.recipe.train.seed,
        started=info.started,
        seconds=seconds,
        device=info.device,
        threads=info.threads,
        weights=weights,
        weights_from=weights_from(info),
        data=data.get("fingerprint"),
        test_images=entry.assessment.content,
        teacher=teachers_weights(info.teacher or {}),
        commit=commit,
        versions=info.versions,
        command=shlex.join(info.command) if info.command else None,
        again=repeating(entry.run),
    )


def repeating(run: RunFolder) -> str | None:
    """The command that repeats a run; None where that needs more than its folder says."""
    info = run.info
    if soup_of(info):
        made = made_again(info)
        return made[1] if made else None
    if imported_from(info) is not None:
        return shlex.join(info.command) if "import" in info.command[:2] else None
    if cut_from(info) is not None:
        return None
    allow_code = False
    with suppress(DistillError):  # a recipe that cannot be read repeats nothing either
        allow_code = bool(run.recipe().own_code)
    return rerun_command(info.role, run.path, allow_code=allow_code)


def repeating_before(tested: Mapping[str, Sequence[EvaluatedModel]], runs_dir: Path) -> tuple[str, ...]:
    """The commands that repeat what taught these runs, or lent them weights, and is none of them; the oldest first."""
    runs = {
        entry.run.path.resolve(): entry.run
        for group in tested.values()
        for entry in group
        if isinstance(entry, EvaluatedRun)
    }
    found: dict[Path, RunFolder] = {}
    for run in runs.values():
        found |= {each.path.resolve(): each for each in behind(run, runs_dir, taught=True)}
    others = [run for path, run in found.items() if path not in runs][::-1]  # of one second, what is further behind
    others.sort(key=lambda run: run.info.started or "")
    return tuple(line for run in others if (line := repeating(run)) is not None)


def _of_file(entry: EvaluatedFile) -> Provenance:
    return Provenance(
        place=entry.file.place,
        weights=entry.file.sha256,
        data=entry.file.about.trained_on or None,
        test_images=entry.assessment.content,
    )
