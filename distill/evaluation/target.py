"""What is evaluated: a run, or an exported file, known without opening its network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from distill.evaluation.stored import Seal, evaluation_of_file
from distill.files import json_sha256, may_write, sha256_file
from distill.fingerprint import architecture_sha256
from distill.models.classifier import Classifier
from distill.models.onnx_open import OnnxClassifier
from distill.models.trained import load_trained
from distill.recipe import Recipe, parse_recipe
from distill.recipe.data_spec import DataSpec
from distill.runs import RunFolder
from distill.runs.checkpoints import MODEL_FILE, best_checkpoint

__all__ = ["EvaluationTarget", "evaluation_target"]


@dataclass(frozen=True)
class EvaluationTarget:
    """What is evaluated: where it lies, where its answers are kept and what they belong to, and its data.

    Attributes:
        load: Opens it; nothing is opened where the answers are stored.
        trained_on: Fingerprint of the images it learned from; None where that is not known.
    """

    place: str
    folder: Path
    seal: Seal
    spec: DataSpec
    load: Callable[[], Classifier]
    trained_on: str | None = None

    @property
    def keeps(self) -> bool:
        """Whether its answers can be kept; not where a run may only be read."""
        return may_write(self.folder) and may_write(self.folder.parent)


def evaluation_target(subject: RunFolder | OnnxClassifier, *, device: torch.device | None = None) -> EvaluationTarget:
    """What a run, or an exported file, is evaluated as.

    Args:
        device: Where a run's network goes; None: the CPU.

    Raises:
        RunError: A run has no whole checkpoint.
    """
    if isinstance(subject, OnnxClassifier):
        folder = evaluation_of_file(subject.path)
        spec = parse_recipe(subject.about.recipe, source=f"{subject.path} (the recipe in it)").data
        seal, trained_on = Seal(subject.sha256, None), subject.about.trained_on or None
        return EvaluationTarget(subject.place, folder, seal, spec, lambda: subject, trained_on)
    recipe, run = subject.recipe(), subject
    seal = Seal(sha256_file(best_checkpoint(run.checkpoints) / MODEL_FILE), _network_id(recipe))
    load = partial(load_trained, run, device=device or torch.device("cpu"))
    return EvaluationTarget(str(run.path), run.evaluation, seal, recipe.data, load, run.info.trained_on)


def _network_id(recipe: Recipe) -> str:
    """What decides the answers of given weights: an edited recipe.yaml makes another network of them."""
    model = recipe.model
    return json_sha256([architecture_sha256(model), model.model_dump(mode="json", include={"normalize"})])
