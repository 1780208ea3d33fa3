"""What a run stands on: data, teacher, stored answers. It is kept in run.json, and compared with that later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill.data.splits import Splits
from distill.errors import RunError
from distill.files import json_sha256, read_text
from distill.pipeline.taught import taught_views
from distill.recipe import Recipe
from distill.recipe.schema import TeacherSpec
from distill.recipe.yaml_tree import read_yaml
from distill.runs import RunFolder, RunInfo
from distill.teaching.bank import Bank
from distill.teaching.identity import Identity
from distill.teaching.key import bank_key
from distill.teaching.teacher_file import Teacher
from distill.text import brief

__all__ = [
    "PLACES",
    "about_bank",
    "about_banks",
    "about_data",
    "changes",
    "differing",
    "edited",
    "foreseen",
    "named_banks",
    "recipe_digests",
    "refuse_changes",
    "teacher_record",
    "teachers_weights",
]

PLACES = {
    "data": ("root", "options", "unlabelled"),
    "model": ("weights",),
    "teacher": ("run", "onnx", "bank", "banks"),
    "train": ("threads",),  # the run keeps their number
}
"""Of a recipe's parts, where things lie: what lies there has a digest of its own."""


# What run.json keeps


def about_data(splits: Splits) -> dict[str, Any]:
    """Of the images: which they are, and how many."""
    more = splits.unlabelled
    return {
        "fingerprint": splits.fingerprint,
        "val_fingerprint": splits.val_fingerprint,
        "classes": list(splits.dataset.classes),
        "train": len(splits.labelled),
        "val": 0 if splits.val is None else len(splits.val),
        "skipped": splits.dataset.skipped,
    } | ({} if more is None else {"unlabelled": more.count, "unlabelled_fingerprint": more.fingerprint})


def teacher_record(teacher: Teacher) -> dict[str, Any]:
    """Of a teacher that is here."""
    place = {"run": None, "onnx": teacher.place} if teacher.run is None else {"run": str(teacher.run.path)}
    return place | {"name": teacher.name} | _about_identity(teacher.identity)


def _about_identity(identity: Identity) -> dict[str, Any]:
    return {"sha256": identity.weights, "architecture": identity.architecture, "precision": identity.precision}


def about_bank(bank: Bank, views: int) -> dict[str, Any]:
    """Of the stored answers to the first ``views`` views."""
    return {
        "logits": "bank",
        "bank": str(bank.path),
        "bank_key": bank.info.key.digest(),
        "answers": bank.answers_sha256(views),
    }


def about_banks(banks: Sequence[tuple[Bank, float]], views: int) -> dict[str, Any]:
    """Of banks and their weights, whose teachers may be anywhere; the first one stands for a single one."""
    first = banks[0][0]
    named = [
        {
            "path": str(bank.path),
            "weight": weight,
            "answers": bank.answers_sha256(views),
            "sha256": bank.info.identity.weights,
        }
        for bank, weight in banks
    ]
    names = " + ".join(bank.info.teacher.name if bank.info.teacher else "?" for bank, _ in banks)
    about = {"run": None, "name": names, "banks": named} | _about_identity(first.info.identity)
    return about | about_bank(first, views)


def teachers_weights(about: Mapping[str, Any]) -> str | None:
    """The sha256 of a run's teacher's weights, or those of its several teachers; None where it does not say."""
    banks = about.get("banks")
    several = [str(each.get("sha256")) for each in (banks if isinstance(banks, list) else ()) if isinstance(each, dict)]
    return ", ".join(several) if several else about.get("sha256")


def named_banks(teacher: TeacherSpec) -> list[tuple[Path, float]]:
    """The banks that a recipe names, and their weights; one named by a run was built, and is named by its path here."""
    if teacher.bank is not None:
        return [(Path(teacher.bank), 1.0)]
    assert all(entry.path is not None for entry in teacher.banks), "pipeline/ensemble.py settles them"
    return [(Path(entry.path), entry.weight) for entry in teacher.banks if entry.path is not None]


def foreseen(recipe: Recipe, splits: Splits, teacher: Teacher | None) -> dict[str, Any] | None:
    """What run.json will keep of the teacher, as far as that is known before anything is loaded or built."""
    if recipe.teacher is None:
        return None
    views = taught_views(recipe)
    if teacher is None:
        return about_banks([(Bank.read(path), weight) for path, weight in named_banks(recipe.teacher)], views)
    if recipe.teacher.logits == "live":
        return teacher_record(teacher) | {"logits": "live"}
    key = bank_key(recipe, splits, teacher.identity)
    bank = Bank.find(teacher.bank_path(key))
    stored = {"bank_key": key.digest()} if bank is None or bank.info.views < views else about_bank(bank, views)
    return teacher_record(teacher) | stored


# What changed since


def changes(before: RunInfo, *, data: dict[str, Any], teacher: dict[str, Any] | None) -> list[str]:
    """What a run stood on and no longer does, each as ``part (was A, is B)``; what is not known of both is left out."""
    then, now = before.teacher or {}, teacher or {}
    pairs = {
        "data": (before.trained_on, data.get("fingerprint")),
        "validation images": ((before.data or {}).get("val_fingerprint"), data.get("val_fingerprint")),
        "unlabelled images": (
            (before.data or {}).get("unlabelled_fingerprint"),
            data.get("unlabelled_fingerprint"),
        ),
        "teacher": (then.get("sha256"), now.get("sha256")),
        "teacher's network": (then.get("architecture"), now.get("architecture")),
        "bank": (then.get("bank_key"), now.get("bank_key")),
        "stored answers": (_answers(then), _answers(now)),
    }
    return differing({part: pair for part, pair in pairs.items() if None not in pair})


def recipe_digests(text: str) -> dict[str, str]:
    """Hex sha256 of each part of a recipe as a run writes it, every default spelled out.

    Of what it says, not of where things lie, which may move; nor of what a later version's schema makes of it.
    """
    tree = read_yaml(text).value
    if not isinstance(tree, dict):
        return {}
    for part, places in PLACES.items():
        for place in places if isinstance(tree.get(part), dict) else ():
            tree[part].pop(place, None)
    return {str(part): json_sha256(_without_code(content)) for part, content in tree.items()}


def _without_code(content: Any) -> Any:
    """Without the places of code of the user's own, whose digest stands beside them."""
    if isinstance(content, list):
        return [_without_code(each) for each in content]
    if not isinstance(content, dict):
        return content
    places = ("name", "code") if content.get("code_sha256") else ()
    return {key: _without_code(each) for key, each in content.items() if key not in places}


def edited(run: RunFolder) -> list[str]:
    """The parts of a run's recipe.yaml that are not as they were when it began; none where that was not kept."""
    before = run.info.extra.get("recipe_sha256")
    if not isinstance(before, dict):
        return []
    now = recipe_digests(read_text(run.path / "recipe.yaml"))
    return [f"{part} in recipe.yaml" for part in sorted({*before, *now}) if before.get(part) != now.get(part)]


def _answers(about: dict[str, Any]) -> Any:
    """Digests of what was read; several banks with their weights."""
    banks = about.get("banks") or []
    return about.get("answers") if len(banks) < 2 else [(each.get("answers"), each.get("weight")) for each in banks]


def differing(pairs: dict[str, tuple[Any, Any]]) -> list[str]:
    """The names of the pairs that differ, with both: ``torch (was 2.11, is 2.12)``."""
    return [f"{name} (was {brief(was)}, is {brief(here)})" for name, (was, here) in pairs.items() if was != here]


def refuse_changes(
    run: RunFolder, *, data: dict[str, Any], teacher: dict[str, Any] | None, initial: str | None = None
) -> None:
    """Refuse to go on with a run that would stand on something else than it began with.

    Args:
        initial: sha256 of the weights that a run without a checkpoint starts over from.

    Raises:
        RunError: Names what differs.
    """
    changed = changes(run.info, data=data, teacher=teacher)
    began_with = run.info.extra.get("initial_sha256")
    if None not in (began_with, initial):
        changed += differing({"initial weights": (began_with, initial)})
    changed += edited(run)
    if changed:
        raise RunError(
            f"{run.path}: changed since this run began: {'; '.join(changed)}",
            hint="restore what it began with, or start a new run",
        )
