"""Trainings by their keys, a run folder each: what is there is not trained again. Grids and searches share it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distill.errors import RunError
from distill.recipe import Recipe
from distill.runs import RunFolder
from distill.runs.checkpoints import last_checkpoint, read_meta
from distill.sweeps.folder import SweepFolder
from distill.sweeps.trainer import PrunedTrial, Trainer, TrialFailedError, TrialHooks, refuse_mixture

__all__ = ["TrainingCache"]


class TrainingCache:
    """The runs of a folder, as its ledger has them."""

    def __init__(self, folder: SweepFolder, trainer: Trainer) -> None:
        self.folder, self.trainer = folder, trainer
        self.ledger = folder.ledger()

    def clear_orphans(self) -> None:
        """Remove runs that a killed process left before it wrote them down."""
        self.folder.remove_orphans({entry["run"] for entry in self.ledger.values() if "run" in entry})

    def run_of(self, key: str) -> RunFolder | None:
        """The run that a key has, if its folder is still there and holds something."""
        entry = self.ledger.get(key)
        if entry is None or "run" not in entry:
            return None
        run = self.folder.run_of(entry["run"])
        return run if run.path.is_dir() and not run.never_began() else None

    def failure(self, key: str) -> str | None:
        """Why it failed, as it would again."""
        return self.ledger.get(key, {}).get("failed")

    def is_over(self, key: str) -> bool:
        """Whether there is nothing left to do: its run is finished, or failed. One that left no run is tried again."""
        run = self.run_of(key)
        if run is None:
            return False
        try:
            return run.status == "finished" or self.failure(key) is not None
        except RunError as error:
            raise RunError(error.message, hint=f"remove {run.path}, and the trial is trained anew") from error

    def refuse_mixture(self, key: str, recipe: Recipe, what: str) -> None:
        """Refuse to rank runs on some images, or of some teacher, with runs on others.

        Raises:
            RunError: The key's run stood on something that has changed since.
        """
        if (run := self.run_of(key)) is not None:
            refuse_mixture(f"{self.folder.path}: {what}, {run.path},", self.trainer.changes_since(run.info, recipe))

    def train(self, key: str, recipe: Recipe, about: Mapping[str, Any], *, until: int | None = None) -> None:
        """Train from where it stands, to its end or to a number of epochs, of which a later call goes on exactly.

        Args:
            about: What its run.json says of the sweep that it belongs to.

        Raises:
            TrialFailedError: It cannot be trained as chosen; that is kept, too.
        """
        run = self.run_of(key)
        if run is not None and until is not None and _epochs_saved(run) >= until:
            return
        watch = TrialHooks(started=lambda begun, _epoch: self._enter(key, begun, about), pause_at=until)
        try:
            if run is None:
                self.trainer.train(recipe, watch)
            else:
                self.trainer.go_on(run, watch)
        except PrunedTrial:
            pass
        except TrialFailedError as error:
            self.keep(key, failed=error.message)
            raise

    def keep(self, key: str, **told: Any) -> None:
        """Write something down beside a key's run."""
        self.ledger.setdefault(key, {}).update(told)
        self.folder.write_ledger(self.ledger)

    def _enter(self, key: str, run: RunFolder, about: Mapping[str, Any]) -> None:
        run.write_info(sweep={"name": self.folder.path.name} | dict(about))
        entry = self.folder.entry_of(run)
        if self.ledger.get(key, {}).get("run") != entry:  # another folder: what was known was of the old one
            self.ledger[key] = {"run": entry}
            self.folder.write_ledger(self.ledger)


def _epochs_saved(run: RunFolder) -> int:
    place = last_checkpoint(run.checkpoints)
    return 0 if place is None else int(read_meta(place)["epoch"])
