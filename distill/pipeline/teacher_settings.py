"""What a recipe leaves open of its teacher: live or from a bank, rounded to what, asked through what. Decided once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Literal

from distill.data.mixture import mixture_of
from distill.data.splits import Splits
from distill.files import may_write
from distill.objectives import RequiredOutputs
from distill.pipeline.provenance import named_banks
from distill.pipeline.runtime import resolve_teacher_runtime
from distill.pipeline.taught import taught_epochs, taught_views
from distill.recipe import Recipe
from distill.teaching.bank import Bank
from distill.teaching.build import pooled_features
from distill.teaching.key import bank_key
from distill.teaching.rounding import suited_dtype
from distill.teaching.teacher_file import Teacher

__all__ = ["resolve_teacher_inference", "resolve_teacher_settings"]

_AUTO_DISK_SHARE = 0.25  # auto never fills more of the free disk than this with a bank


def resolve_teacher_settings(
    recipe: Recipe, splits: Splits, teacher: Teacher | None, requires: RequiredOutputs
) -> tuple[Recipe, dict[str, Any]]:
    """Resolve ``teacher.logits`` and ``teacher.logits_dtype`` once; what they became and why goes to ``run.json``.

    Args:
        requires: What the objective wants to know of the teacher.

    Raises:
        UsageError: The teacher knows other classes than the data has.
        RunError: The teacher's answers are not finite.
    """
    if teacher is not None:
        teacher.require_classes(splits.dataset.classes)
    if recipe.teacher is not None:
        recipe = _with(recipe, features="pooled" if recipe.stored_features else "none")
    recipe, choices = resolve_teacher_inference(recipe, splits, teacher, requires)
    if recipe.teacher is None or recipe.teacher.logits != "auto":
        return recipe, choices
    how, why = ("bank", "a bank was named") if teacher is None else _live_or_bank(recipe, splits, teacher, requires)
    return _with(recipe, logits=how), choices | {"teacher.logits": how, "teacher.logits_why": why}


def _live_or_bank(
    recipe: Recipe, splits: Splits, teacher: Teacher, requires: RequiredOutputs
) -> tuple[Literal["live", "bank"], str]:
    """What ``teacher.logits: auto`` becomes, and why."""
    if requires.teacher_features and not recipe.stored_features:
        return "live", f"the objective asks for features, which a bank has not: {', '.join(requires.teacher_features)}"
    views, epochs = taught_views(recipe), taught_epochs(recipe)
    key = bank_key(recipe, splits, teacher.identity)
    path = teacher.bank_path(key)
    if (bank := Bank.find(path)) is not None and bank.info.views >= views:
        return "bank", f"a bank with {views} views is there: {path}"
    if not may_write(path):
        return "live", f"no bank can be written below {teacher.home}"
    width = len(teacher.identity.classes) + pooled_features(recipe, teacher.recipe)
    disk = views * len(splits.train) * width * (2 if key.dtype == "float16" else 4)
    if disk > _AUTO_DISK_SHARE * shutil.disk_usage(teacher.home).free:
        return "live", f"a bank would take {disk / 1e9:.1f} GB, over a quarter of the free disk"
    if views * len(splits.train) > epochs * mixture_of(recipe, splits).images:
        return "live", f"a bank of {views} views asks the teacher more often than {epochs} epochs do"
    if views == epochs and recipe.train.early_stopping is not None:
        return "live", "the run may stop early, a bank is built whole"
    return "bank", f"{views} views for {epochs} epochs: asked once, and the next student asks nothing"


def resolve_teacher_inference(
    recipe: Recipe,
    splits: Splits,
    teacher: Teacher | None,
    requires: RequiredOutputs | None = None,
    *,
    path: Path | None = None,
) -> tuple[Recipe, dict[str, Any]]:
    """Resolve what the answers are rounded to, and what the teacher is asked through.

    Args:
        requires: What the objective wants to know; None: logits alone.
        path: Of the bank that is built; None: the teacher's own, or none.

    Raises:
        RunError: The teacher's answers are not finite.
        UsageError: It cannot be asked through the runtime that is named.
    """
    recipe, dtype = _choose_dtype(recipe, splits, teacher)
    features = bool(requires and requires.teacher_features) or _stores(recipe)
    recipe, runtime = resolve_teacher_runtime(recipe, splits, teacher, features=features, path=path)
    return recipe, dtype | runtime


def _stores(recipe: Recipe) -> bool:
    return recipe.teacher is not None and recipe.stored_features


def _choose_dtype(recipe: Recipe, splits: Splits, teacher: Teacher | None) -> tuple[Recipe, dict[str, Any]]:
    """Resolve ``teacher.logits_dtype: auto``, for banks and asking live alike: by how large the teacher's logits are.

    Of banks that are named it is theirs; where those differ it stays ``auto``, and each is as it is.

    Raises:
        RunError: The teacher's answers are not finite.
    """
    if recipe.teacher is None or recipe.teacher.logits_dtype != "auto":
        return recipe, {}
    if teacher is None:
        dtypes = {Bank.read(path).info.key.dtype for path, _ in named_banks(recipe.teacher)}
        return (_with(recipe, logits_dtype=dtypes.pop()) if len(dtypes) == 1 else recipe), {}
    dtype = suited_dtype(teacher.largest_logit(splits, threads=recipe.teacher_threads))
    return _with(recipe, logits_dtype=dtype), {"teacher.logits_dtype": dtype}


def _with(recipe: Recipe, **changes: Any) -> Recipe:
    assert recipe.teacher is not None
    return recipe.model_copy(update={"teacher": recipe.teacher.model_copy(update=changes)})
