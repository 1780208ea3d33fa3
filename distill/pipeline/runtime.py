"""What a teacher is asked through, decided once and written into the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distill.data.mixture import mixture_of
from distill.data.splits import Splits
from distill.errors import DistillError, UsageError
from distill.evaluation.cost import spec_cost
from distill.recipe import Recipe
from distill.teaching.bank import Bank
from distill.teaching.key import bank_key
from distill.teaching.runtime import ONNXRUNTIME, TORCH
from distill.teaching.teacher_file import Teacher

__all__ = ["resolve_teacher_runtime"]

MIN_MACS = 1e12  # of all answers of a run: about a minute of a CPU's thread; an export takes some ten seconds
MAX_DISAGREEMENT = 1e-4  # of the largest logit; 4e-6 was seen


def resolve_teacher_runtime(
    recipe: Recipe, splits: Splits, teacher: Teacher | None, *, features: bool = False, path: Path | None = None
) -> tuple[Recipe, dict[str, Any]]:
    """Resolve ``teacher.runtime: auto``; what it became and why goes to ``run.json``.

    It does not depend on whether the teacher is asked live or a bank is built, so that both train to the same bytes. A
    bank that was begun goes on as it was begun.

    Args:
        features: Whether stages of the teacher are asked too, which torch alone has.
        path: Of the bank; None: the teacher's own for this recipe.

    Raises:
        UsageError: ``onnxruntime`` is named, and the teacher cannot be asked so.
    """
    if recipe.teacher is None or teacher is None:
        return recipe, {}
    if features and (recipe.teacher.runtime == ONNXRUNTIME or teacher.run is None):
        raise UsageError(
            f"teacher.runtime {ONNXRUNTIME} has logits alone, and objective {recipe.objective.kind} asks for features",
            hint="an ONNX file teaches by logits" if teacher.run is None else "--set teacher.runtime=auto",
        )
    if recipe.teacher.runtime != "auto":
        if recipe.teacher.runtime == ONNXRUNTIME:
            teacher.forward_through(ONNXRUNTIME, threads=recipe.teacher_threads)  # fails before a folder exists
        return recipe, {}
    runtime, why = (TORCH, "features are asked") if features else _choose(recipe, splits, teacher, path)
    chosen = recipe.teacher.model_copy(update={"runtime": runtime})
    told = {"teacher.runtime": runtime, "teacher.runtime_why": why}
    return recipe.model_copy(update={"teacher": chosen}), told


def _choose(recipe: Recipe, splits: Splits, teacher: Teacher, path: Path | None) -> tuple[str, str]:
    if teacher.run is None:
        return ONNXRUNTIME, "it is an ONNX file"
    path = path or teacher.bank_path(bank_key(recipe, splits, teacher.identity))
    if (bank := Bank.find(path)) is not None:
        begun = bank.info.runtime.get("name")
        return ONNXRUNTIME if begun == ONNXRUNTIME else TORCH, f"the bank {path.name} was begun so"
    if teacher.device.type != "cpu":
        return TORCH, f"it is asked on {teacher.device}"
    if teacher.identity.precision != "fp32":
        return TORCH, f"it answers in {teacher.identity.precision}"
    macs = spec_cost(teacher.run.recipe().model, len(teacher.identity.classes)).macs
    total = float(macs) * mixture_of(recipe, splits).images * recipe.train.epochs
    if total < MIN_MACS:
        return TORCH, "asked too little for an export to pay"
    try:
        disagreement = teacher.disagreement(splits, threads=recipe.teacher_threads)
    except DistillError as error:
        return TORCH, error.message
    if disagreement > MAX_DISAGREEMENT:
        return TORCH, f"through ONNX Runtime its answers differ by {disagreement:.1g} of the largest"
    return ONNXRUNTIME, f"faster on a CPU; its answers differ from torch's by {disagreement:.1g} of the largest"
