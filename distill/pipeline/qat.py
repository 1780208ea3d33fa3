"""Quantisation-aware training of a finished run, so that its int8 file loses less (arXiv:1712.05877)."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from distill.events import Note
from distill.fingerprint import state_sha256
from distill.models import resolved_model, without_weights
from distill.models.trained import Trained
from distill.pipeline.context import Options, prepare
from distill.pipeline.launch import launch
from distill.pipeline.resumable import resumed_or
from distill.pipeline.teacher import resolve_teacher, taught_as_before
from distill.pipeline.worker import train_worker
from distill.recipe import Recipe, dump_recipe, parse_recipe
from distill.recipe.derived import derived_name
from distill.runs import RunFolder
from distill.text import counted

__all__ = ["train_quantised"]

_BITS = 7  # of weights: the kernels of every processor stay open, those of AVX2 without VNNI too
_SHARE, _LR = 0.1, 0.01  # of the run's epochs and of its learning rate, falling along a cosine: arXiv:2004.09602


def train_quantised(source: RunFolder, trained: Trained, *, epochs: int | None, options: Options) -> RunFolder:
    """The run ``<recipe>_qat``: ``source``'s weights, trained on as an int8 file will compute.

    Its teacher, bank and images are the run's own. One that is there, of the same weights, is gone on with.

    Args:
        trained: ``source``'s network.
        epochs: None: a tenth of the run's, and one at least.
    """
    recipe = _recipe(source, trained, epochs, options)
    into = options.into or options.runs_dir / recipe.name
    initial = state_sha256(trained.module.state_dict())

    def begin(options: Options) -> Path:
        options.tell(Note(f"quantisation-aware training of {source.path}, {counted(recipe.train.epochs, 'epoch')}"))
        return launch(train_worker, prepare(recipe, replace(options, init_from=str(source.path)))).run

    def fits(run: RunFolder) -> bool:
        return run.info.extra.get("initial_sha256") == initial and _same(run.recipe(), recipe)

    return resumed_or(begin, into, options, fits=fits)


def _recipe(source: RunFolder, trained: Trained, epochs: int | None, options: Options) -> Recipe:
    recipe = resolve_teacher(taught_as_before(source), runs_dir=options.runs_dir, override=None)
    model = resolved_model(without_weights(recipe.model), trained.normalize)
    objective = recipe.objective.after_epochs(recipe.train.epochs)
    name = derived_name(recipe.name, "_qat")
    recipe = recipe.model_copy(update={"name": name, "model": model, "objective": objective})
    changes = {
        "train.epochs": epochs or max(1, math.ceil(_SHARE * recipe.train.epochs)),
        "train.fake_quantize": _BITS,
        "train.freeze_backbone_epochs": 0,
        "train.early_stopping": "null",
        "train.ema": 0.0,  # an average over so few steps would hold the weights that it began with
        "optim.lr": _LR * recipe.optim.lr,
        "optim.weight_decay": recipe.optim.weight_decay * (_LR if recipe.optim.decoupled_decay else 1.0),
        "schedule": "{kind: cosine}",
    }
    overrides = [f"{key}={value}" for key, value in changes.items()]
    return parse_recipe(dump_recipe(recipe), source=recipe.name, overrides=overrides)


def _same(one: Recipe, other: Recipe) -> bool:
    """Whether both were meant alike: threads, format and precision follow the machine, the bank the disk."""
    left, right = (
        (each.train.epochs, each.train.fake_quantize, each.optim, each.objective, each.augment, each.data)
        for each in (one, other)
    )
    return left == right
