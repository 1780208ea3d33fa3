"""Shapes as recipes: what they cost, and what they are worth after so many epochs; both are asked once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from distill.evaluation.assess import DatasetCache, assess
from distill.events import Note, Tell
from distill.recipe import Recipe
from distill.runs import RunFolder
from distill.searches.bench import Bench
from distill.searches.costs import Costs
from distill.searches.rungs import Score
from distill.searches.space import Shape, Space
from distill.sweeps.grid import values_of
from distill.sweeps.plan import BaseRecipe, trial_key
from distill.sweeps.trainer import TrialFailedError
from distill.sweeps.training_cache import TrainingCache
from distill.text import duration

__all__ = ["ShapeEvaluator", "kl_to_teacher"]


@dataclass
class ShapeEvaluator:
    """Everything a search asks of a shape.

    Attributes:
        teacher: Its logits on the validation images, ``(N, C)``; None where it cannot be asked.
        temperature: Of the divergence from it.
        epochs: About how many all of the search trains, for the time that is left; 0: not known.
        rungs: After how many epochs shapes are ranked: one that is trained further is judged there too, on its way.
    """

    base: BaseRecipe
    space: Space
    bench: Bench
    kept: TrainingCache
    device: torch.device
    tell: Tell
    teacher: np.ndarray | None
    temperature: float
    epochs: int = 0
    rungs: tuple[int, ...] = ()
    _recipes: dict[tuple[Shape, int | None], Recipe] = field(default_factory=dict)
    _guesses: dict[Shape, Costs] = field(default_factory=dict)
    _checked: set[str] = field(default_factory=set)
    _data: DatasetCache = field(default_factory=DatasetCache)

    def recipe_of(self, shape: Shape, seed: int | None = None) -> Recipe:
        """The recipe that is this shape."""
        if (shape, seed) not in self._recipes:
            self._recipes[shape, seed] = self.base.recipe_of(self.space.trial(shape, seed))
        return self._recipes[shape, seed]

    def params_of(self, shape: Shape) -> dict[str, Any]:
        """The recipe's keys that make a shape, and their values."""
        return values_of(self.space.trial(shape))

    # Prices

    def predicted(self, shape: Shape) -> Costs:
        """About, at once."""
        if shape not in self._guesses:
            self._guesses[shape] = self.bench.predicted(self.recipe_of(shape))
        return self._guesses[shape]

    def confirmed(self, shape: Shape) -> Costs:
        """As measured on its export, untrained."""
        return self.bench.confirmed(self.recipe_of(shape))

    # Worth

    def run_of(self, shape: Shape, seed: int | None = None) -> RunFolder | None:
        """The run of a shape, where there is one."""
        return self.kept.run_of(trial_key(self.recipe_of(shape, seed)))

    def score(self, shape: Shape, epochs: int, seed: int | None = None) -> Score | None:
        """After the first ``epochs``, as it was found then: a run that went on since is not asked again."""
        recipe = self.recipe_of(shape, seed)
        key = trial_key(recipe)
        if self.kept.failure(key) is not None:
            return None
        known = self.kept.ledger.get(key, {}).get("scores", {})
        self._check(key, recipe, shape)
        if str(epochs) in known and self.kept.run_of(key) is not None:
            return Score(**known[str(epochs)])
        if seed is None and (before := max((each for each in self.rungs if each < epochs), default=None)) is not None:
            if self.score(shape, before) is None:
                return None
            known = self.kept.ledger.get(key, {}).get("scores", {})
        self._say_what_is_left()
        try:
            about = {"trial": str(shape), "params": self.params_of(shape)}
            self.kept.train(key, recipe, about, until=None if epochs >= recipe.train.epochs else epochs)
        except TrialFailedError as error:
            self.tell(Note(f"{shape}: failed: {error.message}", "warning"))
            return None
        run = self.kept.run_of(key)
        assert run is not None, "it was trained"
        score = self._judged(run, epochs)
        known = self.kept.ledger.get(key, {}).get("scores", {})
        self.kept.keep(key, scores=known | {str(epochs): asdict(score)})
        return score

    def _check(self, key: str, recipe: Recipe, shape: Shape) -> None:
        if key not in self._checked:
            self._checked.add(key)
            self.kept.refuse_mixture(key, recipe, str(shape))

    def _judged(self, run: RunFolder, epochs: int) -> Score:
        lines = run.metrics()
        picked = run.picked(lines[:epochs])
        assert picked is not None, "a search has validation images"
        top1 = picked["val_top1"]
        if self.teacher is None or len(lines) > epochs:  # its answers after so many are gone
            return Score(float(top1), None)
        answers = self.answers(run)
        return Score(float(top1), kl_to_teacher(answers, self.teacher, self.temperature))

    def answers(self, run: RunFolder, split: str = "val") -> np.ndarray:
        """Logits of a run's best checkpoint, ``(N, C)``."""
        return assess(run, split=split, device=self.device, data=self._data).logits

    def right(self, run: RunFolder, split: str = "val") -> np.ndarray:
        """Which images its best checkpoint answers right, ``(N,)`` bool."""
        return assess(run, split=split, device=self.device, data=self._data).correct

    # Time

    def seconds_per_epoch(self) -> float | None:
        """Mean of all that was trained here; None before the first epoch."""
        spent = self._spent()
        return sum(spent) / len(spent) if spent else None

    def plan_rest(self, shapes: Sequence[Shape], seeds: int) -> None:
        """From now on what is left is so many seeds of these shapes: fewer than was thought where some coincide."""
        whole = self.base.recipe.train.epochs
        runs = [self.run_of(shape, self.seed_of(number)) for shape in shapes for number in range(seeds)]
        left = sum(whole - (0 if run is None else len(run.metrics())) for run in runs)
        self.epochs = len(self._spent()) + left

    def seed_of(self, number: int) -> int | None:
        """The seed of a shape's run of this number; None, the recipe's own, of the first."""
        return self.base.recipe.train.seed + number if number else None

    def _spent(self) -> list[float]:
        """Seconds of every epoch that was trained here."""
        runs = [run for key in self.kept.ledger if (run := self.kept.run_of(key)) is not None]
        return [line["seconds"] for run in runs for line in run.timing()]

    def _say_what_is_left(self) -> None:
        spent = self._spent()
        if not spent or not self.epochs:
            return
        done = len(spent)
        left = duration(sum(spent) / done * max(self.epochs - done, 1))
        self.tell(Note(f"{done} of about {self.epochs} epochs are trained; about {left} left"))


def kl_to_teacher(answers: np.ndarray, teacher: np.ndarray, temperature: float) -> float:
    """Mean KL divergence of answers from a teacher's, softened, times the square of the temperature.

    Shapes:
        answers, teacher: ``(N, C)`` logits of the same images.
    """
    ours, theirs = (F.log_softmax(torch.from_numpy(each).double() / temperature, dim=1) for each in (answers, teacher))
    value = F.kl_div(ours, theirs, reduction="batchmean", log_target=True).item() * temperature**2
    return value if math.isfinite(value) else math.inf
