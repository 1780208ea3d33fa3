"""The runs of a comparison: what each one is, and which of them are seeds of the same thing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from distill.errors import DistillError
from distill.evaluation.assess import DatasetCache
from distill.evaluation.assessment import Assessment
from distill.evaluation.by_class import few_images_note
from distill.recipe import Recipe, compared_settings, dump_recipe, of_any_seed
from distill.results.figures import Figures
from distill.results.rows import Row
from distill.runs import RunFolder, RunInfo
from distill.runs.origin import IMPORTED_FROM, soup_of
from distill.text import brief

__all__ = [
    "EvaluatedModel",
    "EvaluatedRun",
    "caution_notes",
    "earlier_images_notes",
    "few_images_notes",
    "grouped",
    "identity",
    "message",
    "namesake_notes",
    "origin",
    "precision_notes",
    "seed_notes",
    "unequal_training_notes",
]


class EvaluatedModel(Protocol):
    """Whatever answered a test set: a run, an exported file."""

    @property
    def recipe(self) -> Recipe: ...
    @property
    def assessment(self) -> Assessment: ...


@dataclass(frozen=True)
class EvaluatedRun:
    """One finished run and its answers on the test set."""

    run: RunFolder
    info: RunInfo
    recipe: Recipe
    assessment: Assessment
    figures: Figures

    @property
    def teacher(self) -> dict[str, Any] | None:
        """What run.json says of the teacher it learned from."""
        return self.info.teacher


def message(error: Exception) -> str:
    """The line of an error, a user's or the machine's."""
    return error.message if isinstance(error, DistillError) else f"{type(error).__name__}: {error}"


def origin(info: RunInfo) -> dict[str, Any]:
    """What decides a run besides its recipe: where its weights are from, and the images it saw."""
    began = {"init_from": info.extra.get("init_from"), "data fingerprint": info.trained_on}
    if averaged := soup_of(info):
        return began | {"soup_of": averaged}
    imported = info.extra.get(IMPORTED_FROM)
    if not isinstance(imported, dict):
        return began
    return began | {"imported_from": f"{imported.get('sha256')} {imported.get('entry')}".strip()}


def identity(recipe: Recipe, info: RunInfo) -> str:
    """A run without its seed, and with its teacher's name for the teacher's folder."""
    return f"{dump_recipe(of_any_seed(recipe))}{origin(info)}"


def but_for_the_teacher(recipe: Recipe, info: RunInfo) -> str:
    """A run without its seed and without what a teacher changes: equal for a student and its twin from labels alone."""
    settings = compared_settings(of_any_seed(recipe))
    kept = {
        name: value
        for name, value in settings.items()
        if not name.startswith(("teacher.", "objective."))
        and name not in ("name", "role", "teacher", "augment.views", "model.max_params")
    }
    return f"{kept}{origin(info)}"


def grouped(entries: Sequence[EvaluatedRun], notes: list[str]) -> dict[str, list[EvaluatedRun]]:
    """Runs by identity, one for each seed: the newest. The last of each group is the newest of all."""
    groups: dict[str, list[EvaluatedRun]] = {}
    for entry in entries:
        groups.setdefault(identity(entry.recipe, entry.info), []).append(entry)
    return {key: _of_the_same_images(_by_seed(group, notes), notes) for key, group in groups.items()}


def _by_seed(group: Sequence[EvaluatedRun], notes: list[str]) -> list[EvaluatedRun]:
    """A seed that was run twice is one draw of chance, not two."""
    kept: dict[int, EvaluatedRun] = {}
    for entry in sorted(group, key=_age):
        seed = entry.recipe.train.seed
        if (older := kept.pop(seed, None)) is not None:
            notes.append(f"left out: {older.run.path}: {entry.run.path} has the same seed, {seed}, and counts")
        kept[seed] = entry
    return list(kept.values())


def _age(entry: EvaluatedRun) -> tuple[str, int, str]:
    """Ascends from run to run: when it began, and of one second its number, 999 before 1000."""
    name = entry.run.path.name
    return entry.info.started or "", len(name), name


def _of_the_same_images(group: list[EvaluatedRun], notes: list[str]) -> list[EvaluatedRun]:
    """Those that answered the newest one's test images: where the data is not here any more, older answers stand."""
    newest, kept = group[-1], []
    for entry in group:
        if entry.assessment.content == newest.assessment.content:
            kept.append(entry)
        else:
            notes.append(f"left out: {entry.run.path}: its answers are of other test images than {newest.run.path}'s")
    return kept


def namesake_notes(groups: Mapping[str, list[EvaluatedRun]]) -> list[str]:
    """Where several rows bear one name, the weights, data and keys of the recipe in which they differ."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for group in groups.values():
        recipe = group[0].recipe
        by_name.setdefault(recipe.name, []).append(origin(group[0].info) | compared_settings(recipe))
    notes = []
    for name, trees in by_name.items():
        keys = [key for key in _keys(trees) if len({str(tree.get(key)) for tree in trees}) > 1]
        if keys:
            values = (f"{key} ({', '.join(brief(tree.get(key)) for tree in trees)})" for key in keys[:4])
            notes.append(f"{name}: {len(trees)} rows, which differ in {', '.join(values)}")
    return notes


def _keys(trees: Sequence[dict[str, Any]]) -> list[str]:
    """All keys: those of no recipe first, as a note names only a few."""
    first = ["init_from", "soup_of", "imported_from", "data fingerprint"]
    return first + sorted({key for tree in trees for key in tree}.difference(first))


def earlier_images_notes(tested: Sequence[EvaluatedModel], data: DatasetCache) -> list[str]:
    """Whose answers are of test images that are others by now, and were drawn anew: they stand as they are."""
    return [
        f"{each.assessment.place}: the test images in {spec.place} have changed since it was tested; its figures are "
        "of those that were there then"
        for each in tested
        if not data.are_still(each.assessment.content, spec := each.recipe.data, "test")
    ]


def few_images_notes(tested: Sequence[EvaluatedModel]) -> list[str]:
    """Which classes have too few test images to be judged by; rows that were tested on the same ones are told once."""
    found = ((each.recipe.data.title, few_images_note(each.assessment.result.per_class)) for each in tested)
    return list(dict.fromkeys(f"{name}: {note}" for name, note in found if note is not None))


def precision_notes(what: str, precisions: Iterable[tuple[str, str | None]]) -> list[str]:
    """Which models ran in less than fp32, as they do by default on a GPU; answers may be of an earlier day."""
    names: dict[str, dict[str, None]] = {}
    for name, precision in precisions:
        if precision not in (None, "fp32"):
            names.setdefault(precision, {})[name] = None
    return [f"{what} in {precision}: {', '.join(of)}" for precision, of in names.items()]


def seed_notes(groups: Mapping[str, list[EvaluatedRun]]) -> list[str]:
    """What the seeds of a row varied, and what they shared; rows that share the same are named together."""
    names: dict[str, list[str]] = {}
    notes = []
    for group in groups.values():
        if len(group) < 2:
            continue
        name = group[0].recipe.name
        teachers = {(entry.teacher or {}).get("sha256") for entry in group if entry.teacher}
        if len(teachers) > 1:
            notes.append(f"{name}: its seeds learned from {len(teachers)} different teachers")
        varied, shared = _chance(group)
        shared += ["the teacher"] if len(teachers) == 1 else []
        text = f"{len(group)} seeds vary {_listed(varied)}; they share {_listed(shared)}"
        names.setdefault(text, []).append(name)
    return [f"{', '.join(dict.fromkeys(of))}: {text}" for text, of in names.items()] + notes


def caution_notes(groups: Mapping[str, list[EvaluatedRun]]) -> list[str]:
    """What flatters the runs of a row, as they were told when they began; of several seeds once."""
    lines: dict[str, None] = {}
    for group in groups.values():
        for entry in group:
            cautions = entry.info.extra.get("cautions")
            for line in cautions if isinstance(cautions, list) else []:
                lines[f"{entry.recipe.name}: {line}"] = None
    return list(lines)


def unequal_training_notes(rows: Sequence[Row], tested: Mapping[str, Sequence[EvaluatedModel]]) -> list[str]:
    """Which runs had more labelled images to train on than the run that they are held against, or fewer."""
    counts = {run: {_labelled(each) for each in group} for run, group in tested.items()}
    names = {row.run: row.name for row in rows}
    found: dict[str, None] = {}
    for row in rows:
        if row.role == "teacher" or row.baseline is None:
            continue
        ours, theirs = counts.get(row.run, set()), counts.get(row.baseline, set())
        if len(ours) == len(theirs) == 1 and 0 not in ours | theirs and ours != theirs:
            told = f"{row.name} was trained on {max(ours):,} labelled images, {names[row.baseline]} on {max(theirs):,}"
            found[f"{told}: the difference is not of the method alone"] = None
    return list(found)


def _labelled(entry: EvaluatedModel) -> int:
    """How many labelled images a run was trained on; 0 where that is not known."""
    count = (entry.info.data or {}).get("train") if isinstance(entry, EvaluatedRun) else None
    return count if isinstance(count, int) else 0


def _chance(group: Sequence[EvaluatedRun]) -> tuple[list[str], list[str]]:
    """What was drawn anew for each of these runs, and what was the same for all."""
    recipe = group[0].recipe
    varied, shared = ["order"], [f"the split (seed {recipe.data.split_seed})"]
    if any("dropout" in name and value > 0 for name, value in recipe.model):
        varied.append("dropout")
    if recipe.augment.views == "all":
        varied.append("which views are shown")
    else:
        shared.append(f"the augmented views (seed {recipe.augment.view_seed})")
    initial = [entry.info.extra.get("initial_sha256") for entry in group]
    different = len(set(initial))
    if None in initial:
        varied.append("initial weights of which not all are recorded")
    elif different == 1:
        shared.append("the initial weights")
    elif different < len(group):
        varied.append(f"initial weights ({different} different ones)")
    else:
        varied.insert(0, "initial weights")
    return varied, shared


def _listed(parts: Sequence[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]
