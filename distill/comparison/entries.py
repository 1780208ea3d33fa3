"""The runs of a comparison: what each one is, and which of them are seeds of the same thing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.errors import DistillError
from distill.evaluate.test_set import Assessment
from distill.recipe import Recipe, dump_recipe, flat_settings
from distill.runs import RunFolder, RunInfo
from distill.text import brief

__all__ = ["Entry", "grouped", "identity", "message", "namesake_notes", "origin", "seed_notes"]


@dataclass(frozen=True)
class Entry:
    """One finished run and its answers on the test set."""

    run: RunFolder
    info: RunInfo
    recipe: Recipe
    assessment: Assessment
    result: dict[str, Any]

    @property
    def teacher(self) -> dict[str, Any] | None:
        """What run.json says of the teacher it learned from."""
        return self.info.teacher


def message(error: Exception) -> str:
    """The line of an error, a user's or the machine's."""
    return error.message if isinstance(error, DistillError) else f"{type(error).__name__}: {error}"


def origin(info: RunInfo) -> dict[str, Any]:
    """What decides a run besides its recipe: the weights it began with, and the images it saw."""
    return {"init_from": info.extra.get("init_from"), "data fingerprint": (info.data or {}).get("fingerprint")}


def identity(recipe: Recipe, info: RunInfo) -> str:
    """A run without its seed, and with its teacher's name for the teacher's folder."""
    teacher = recipe.teacher
    if teacher is not None and teacher.run is not None:
        teacher = teacher.model_copy(update={"run": Path(teacher.run).parent.name, "logits": "auto"})
    train = recipe.train.model_copy(update={"seed": 0})
    plain = dump_recipe(recipe.model_copy(update={"train": train, "teacher": teacher}))
    return f"{plain}{origin(info)}"


def grouped(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Runs by identity; the last of each group is the newest."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(identity(entry.recipe, entry.info), []).append(entry)
    return {key: sorted(group, key=lambda entry: entry.run.path.name) for key, group in groups.items()}


def namesake_notes(groups: Mapping[str, list[Entry]]) -> list[str]:
    """Where several rows bear one name, the weights, data and keys of the recipe in which they differ."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for group in groups.values():
        recipe = group[0].recipe
        tree = flat_settings(recipe.model_dump(mode="json", exclude={"train": {"seed"}}))
        by_name.setdefault(recipe.name, []).append(origin(group[0].info) | tree)
    notes = []
    for name, trees in by_name.items():
        keys = [key for key in _keys(trees) if len({str(tree.get(key)) for tree in trees}) > 1]
        if keys:
            values = (f"{key} ({', '.join(brief(tree.get(key)) for tree in trees)})" for key in keys[:4])
            notes.append(f"{name}: {len(trees)} rows, which differ in {', '.join(values)}")
    return notes


def _keys(trees: Sequence[dict[str, Any]]) -> list[str]:
    """All keys: those of no recipe first, as a note names only a few."""
    first = ["init_from", "data fingerprint"]
    return first + sorted({key for tree in trees for key in tree}.difference(first))


def seed_notes(groups: Mapping[str, list[Entry]]) -> list[str]:
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
