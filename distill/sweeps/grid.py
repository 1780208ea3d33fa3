"""A grid: every combination, trained once. What is there already is not trained again, and stays in the table."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from distill.errors import DistillError, RecipeError, RunError
from distill.events import Note
from distill.recipe import Recipe
from distill.results.sweeps import TrialRow
from distill.runs import RunFolder
from distill.sweeps.folder import SweepFolder
from distill.sweeps.plan import BaseRecipe, Trial, trial_key
from distill.sweeps.space import value_of
from distill.sweeps.trainer import Trainer, TrialFailedError
from distill.sweeps.training_cache import TrainingCache
from distill.text import counted, duration, percent

__all__ = ["earlier_trials", "finished_text", "row_of_run", "run_grid", "values_of"]


def values_of(trial: Trial) -> dict[str, Any]:
    """The choices as values, for tables and JSON."""
    return {key: value_of(key, text) for key, text in trial.params.items()}


def row_of_run(number: int, params: dict[str, Any], run: RunFolder, *, seed: int | None = None) -> TrialRow:
    """A trial as its run folder has it, finished or not.

    Raises:
        RunError: The folder is damaged.
    """
    info = run.read_info()
    status: Any = "pruned" if info.extra.get("pruned") and info.status != "finished" else run.status
    if status == "finished":
        result = run.result("val_top1", "epochs", "seconds")
        top1, epochs, seconds = result["val_top1"], result["epochs"], result["seconds"]
    else:
        lines = run.metrics()
        picked = run.picked(lines)
        top1 = None if picked is None else picked.get("val_top1")
        epochs, seconds = len(lines), sum(line["seconds"] for line in run.timing())
    return TrialRow(number, params, status, seed=seed, val_top1=top1, epochs=epochs, seconds=seconds, run=str(run.path))


def earlier_trials(folder: SweepFolder, trainer: Trainer, base: BaseRecipe, planned: Collection[str]) -> list[Trial]:
    """The sweep's trials that were asked for before and are not now: other values of the same keys, other seeds.

    One that is damaged, or of another teacher or other images by now, is told of and left out: nothing needs it.

    Args:
        planned: The keys of the trials that are asked for.
    """
    kept, found = TrainingCache(folder, trainer), []
    for key in [key for key in kept.ledger if key not in planned]:
        if (run := kept.run_of(key)) is None:
            continue
        trial = _trial_of(run, base)
        if trial is None or _key_of(base, trial) != key:  # another version's, or a folder put in its place
            continue
        try:
            kept.refuse_mixture(key, base.recipe_of(trial), "an earlier trial")
            row_of_run(0, {}, run)
        except DistillError as error:
            trainer.options.tell(Note(f"left out of the table: {run.path}: {error.message}", "warning"))
        else:
            found.append(trial)
    return found


def _trial_of(run: RunFolder, base: BaseRecipe) -> Trial | None:
    """What its run.json says it was, under the seed that it had."""
    try:
        params, seed = run.read_info().extra["sweep"]["params"], run.recipe().train.seed
    except (RunError, RecipeError, KeyError, TypeError):
        return None
    if not isinstance(params, Mapping):
        return None
    texts = {key: json.dumps(value) for key, value in params.items()}  # JSON is YAML
    return Trial(texts, None if seed == base.recipe.train.seed or "train.seed" in texts else seed)


def _key_of(base: BaseRecipe, trial: Trial) -> str | None:
    try:
        return trial_key(base.recipe_of(trial))
    except RecipeError:
        return None


class _Grid:
    def __init__(
        self, folder: SweepFolder, trainer: Trainer, trials: Sequence[Trial], recipes: Sequence[Recipe]
    ) -> None:
        self.kept, self.trainer = TrainingCache(folder, trainer), trainer
        self.trials, self.recipes = trials, recipes
        self.keys = [trial_key(recipe) for recipe in recipes]

    def row(self, number: int) -> TrialRow:
        """A trial as it stands."""
        trial, key = self.trials[number], self.keys[number]
        run, failure = self.kept.run_of(key), self.kept.failure(key)
        if run is None:  # where it failed, that was before there was anything to keep
            row = TrialRow(number, values_of(trial), "waiting", seed=trial.seed)
            return row if failure is None else _as_failed(row, failure)
        row = row_of_run(number, values_of(trial), run, seed=trial.seed)
        return row if failure is None else _as_failed(row, failure)

    def is_over(self, number: int) -> bool:
        """Whether there is nothing left to do: it is finished, or it failed as it would again."""
        return self.kept.is_over(self.keys[number])

    def refuse_mixture(self, asked: int) -> None:
        """Refuse to rank trials on some images, or of some teacher, against trials on others.

        Those behind the first ``asked`` are earlier ones, of which :func:`earlier_trials` left out what does not fit.

        Raises:
            RunError: A trial stood on something that has changed since.
        """
        for number, recipe in enumerate(self.recipes[:asked]):
            self.kept.refuse_mixture(self.keys[number], recipe, f"trial {number}")

    def train(self, number: int) -> None:
        """One trial, from where it stands."""
        about = {"trial": number, "params": values_of(self.trials[number])}
        try:
            self.kept.train(self.keys[number], self.recipes[number], about)
        except TrialFailedError as error:
            self.trainer.options.tell(Note(f"trial {number} failed: {error.message}", "warning"))


def _as_failed(row: TrialRow, error: str) -> TrialRow:
    return replace(row, status="failed", error=error)


def run_grid(
    folder: SweepFolder, trainer: Trainer, trials: Sequence[Trial], recipes: Sequence[Recipe], *, asked: int
) -> list[TrialRow]:
    """Train what is not finished yet of the first ``asked`` trials, in order, and return all."""
    grid, tell = _Grid(folder, trainer, trials, recipes), trainer.options.tell
    grid.kept.clear_orphans()
    left = [number for number in range(asked) if not grid.is_over(number)]
    grid.refuse_mixture(asked)
    if len(left) < asked:
        tell(Note(f"{asked - len(left)} of {asked} trials are finished already"))
    if more := len(trials) - asked:
        tell(Note(f"{counted(more, 'earlier trial')} of this sweep stay{'s' * (more == 1)} in the table"))
    done = (grid.row(number) for number in range(len(trials)) if number not in set(left))
    best = max((row.val_top1 for row in done if row.status == "finished" and row.val_top1 is not None), default=None)
    for place, number in enumerate(left, start=1):
        tell(Note(f"trial {number}, {place} of {len(left)} to do: {trials[number].label}"))
        grid.train(number)
        row = grid.row(number)
        if row.val_top1 is not None and row.status == "finished":
            best = row.val_top1 if best is None else max(best, row.val_top1)
            tell(Note(finished_text(row, best)))
    return [grid.row(number) for number in range(len(trials))]


def finished_text(row: TrialRow, best: float) -> str:
    """``trial 3: val top-1 91.20 % in 1m02s; best so far 92.10 %``."""
    result = f"val top-1 {percent(row.val_top1)} % in {duration(row.seconds)}"
    return f"trial {row.number}: {result}; best so far {percent(best)} %"
