"""A checkpoint that was trained elsewhere to a finished run: a teacher, or a row of a table."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from distill.compression.results import Imported
from distill.data.datasets import num_classes
from distill.data.splits import Splits
from distill.errors import UsageError
from distill.evaluation.statistics import share_interval
from distill.events import Note, Tell
from distill.files import expanded, sha256_file
from distill.models import build_model, build_normalize, meta_model, resolved_model, without_weights
from distill.models.foreign_weights import (
    Checkpoint,
    ForeignWeights,
    MisfitError,
    fit_foreign_weights,
    fits,
    read_checkpoint,
)
from distill.models.timm_folder import resolve_timm
from distill.models.trained import load_trained
from distill.pipeline.context import Options, in_asked_threads, prepare
from distill.pipeline.judge import Judge
from distill.pipeline.record import caution
from distill.pipeline.untrained import finish_untrained, holding_weights
from distill.recipe import Recipe, bundled_recipes, load_recipe
from distill.recipe.model_specs import ModelSpec, TimmModel
from distill.runs.origin import IMPORTED_FROM
from distill.team.watch import watching
from distill.text import count, percent

__all__ = ["import_weights"]

_NAMED = 4  # recipes in a hint
_ELSEWHERE = (
    "its weights were trained elsewhere, on images that are not known here: validation and test images may have been "
    "among them"
)


@watching()
@in_asked_threads
def import_weights(
    file: str | Path, recipe: Recipe | str | Path, *, entry: str | None = None, options: Options | None = None
) -> Imported:
    """Make a finished run of weights that were trained elsewhere, such as a published teacher.

    The recipe says which network they are of, what it expects of pixels (``model.normalize``; ``auto`` is what its
    training would have: of a timm network what timm says, else the training images' mean and standard deviation), and
    which data it knows. Tensors are matched by name, or in order where their names are others. The run is like any
    other: it teaches, and is compared, exported and pruned.

    Args:
        file: ``.safetensors``, or what ``torch.save`` wrote of a ``state_dict()``, or of a dictionary that has one. It
            is read without executing anything.
        recipe: A recipe without a teacher, a path, or a bundled name.
        entry: Which of a checkpoint's dictionaries, as ``model`` or ``ema.state_dict``; None: the only one that fits.

    Raises:
        UsageError: The recipe names a teacher.
        MissingError: The file, or the data, is not here.
        DataError: The file is damaged, or of another network.

    Example:
        >>> import torch
        >>> network = load_model("quickstart_scratch").module
        >>> torch.save({"model": network.state_dict()}, "theirs.pth")
        >>> import_weights("theirs.pth", load_recipe("quickstart_scratch", ["name=imported"])).run.parent.name
        'imported'
    """
    options = options or Options()
    if not str(file):
        raise UsageError("no file", hint="distill import FILE --recipe R")
    recipe, place = load_recipe(recipe), expanded(file)
    if recipe.teacher is not None:
        raise UsageError(
            f"recipe {recipe.name} is a student's: it names a teacher, and these weights were trained elsewhere",
            hint="a recipe of the same network without one: distill recipe list",
        )
    checkpoint = read_checkpoint(place)
    context = prepare(_untrained(recipe), replace(options, init_from=None, devices=1))
    splits = context.splits
    assert splits is not None, "prepare() loads them"
    module = build_model(context.recipe.model, num_classes=len(splits.dataset.classes))
    try:
        weights = fit_foreign_weights(module, checkpoint, name=f"recipe {recipe.name}", entry=entry or None)
    except MisfitError as error:
        if fitting := _fitting(checkpoint, entry or None):
            raise MisfitError(error.message, hint=f"it fits --recipe {' or '.join(fitting)}") from None
        raise
    origin = {"file": str(place), "sha256": sha256_file(place), "entry": weights.entry}
    options.tell(Note(_how(weights, place)))
    judge = Judge.of(splits)
    with holding_weights(context, splits, weights.state, teacher=None, made_from={IMPORTED_FROM: origin}) as run:
        caution(run, [_ELSEWHERE], options.tell)
        trained = load_trained(run, device=context.device, precision="fp32")
        right = judge.right(trained)
        top1 = float(right.mean())
        val_top1 = top1 if judge.split == "val" else None
        finish_untrained(run, teacher=None, val_top1=val_top1, line=f"imported from {place}")
    _warn_of_chance(int(right.sum()), len(right), len(trained.classes), options.tell)
    return Imported(
        run=run.path,
        checkpoint=place,
        sha256=origin["sha256"],
        entry=weights.entry,
        tensors=weights.matched,
        by_order=weights.by_order,
        mean=trained.normalize.mean,
        std=trained.normalize.std,
        stated=_stated(recipe.model, splits),
        params=context.params,
        split=judge.split,
        images=len(right),
        top1=top1,
    )


def _fitting(checkpoint: Checkpoint, entry: str | None) -> list[str]:
    """The bundled recipes whose network these weights are of, the first of each network and data set."""
    found: dict[str, str] = {}
    for name, path in bundled_recipes().items():
        recipe = load_recipe(path)
        if recipe.teacher is not None or recipe.data.is_found_out:
            continue
        network = recipe.model.model_dump_json(exclude={"dropout", "max_params", "weights", "normalize"})
        if (key := f"{recipe.data.name} {network}") in found:
            continue
        if fits(meta_model(recipe.model, num_classes(recipe.data)), checkpoint, entry=entry):
            found[key] = name
    return list(found.values())[:_NAMED]


def _untrained(recipe: Recipe) -> Recipe:
    """The recipe with nothing to fetch, and in the precision that weights are asked in which nobody trains here."""
    train = recipe.train
    if train.precision == "auto":
        train = train.model_copy(update={"precision": "fp32"})
    return recipe.model_copy(update={"model": without_weights(_expecting(recipe.model)), "train": train})


def _expecting(named: ModelSpec) -> ModelSpec:
    """A network of timm with what timm says that its pixels are, where the recipe leaves that open, as for training."""
    spec = resolve_timm(named)
    if not isinstance(spec, TimmModel) or spec.normalize != "auto" or spec.weights == "none":
        return spec
    normalize = build_normalize(spec, mean=(math.nan,) * 3, std=(1.0,) * 3)
    return spec if math.isnan(normalize.mean[0]) else resolved_model(spec, normalize)


def _stated(named: ModelSpec, splits: Splits) -> str:
    """Where mean and standard deviation are from."""
    if named.normalize != "auto":
        return "the recipe"
    if _expecting(named).normalize != "auto":
        return "timm"
    return f"{count(len(splits.labelled))} training images"


def _how(weights: ForeignWeights, place: Path) -> str:
    where = f"{place}, {weights.entry}" if weights.entry else str(place)
    how = "in their order, as their names are others" if weights.by_order else "by name"
    return f"{where}: {weights.matched} tensors, matched {how}"


def _warn_of_chance(right: int, images: int, classes: int, tell: Tell) -> None:
    """Say so where a network may be guessing: the usual sign of another order of layers, pixels or classes."""
    if share_interval(right, images).low <= 1 / classes:
        tell(
            Note(
                f"it answers {percent(right / images)} % of these images right, which chance does too: are the pixels "
                "scaled as it expects (model.normalize), the classes in its order, the layers in this network's?",
                "warning",
            )
        )
