"""One trial after another in one process: data is loaded once, a teacher is looked up once and its bank serves all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from distill.data.splits import Splits, load_splits
from distill.errors import DivergedError, InterruptedRunError, OutOfMemoryError, RunError
from distill.events import EpochDone, Event, Note, NotesOnce, RunStarted, Tell
from distill.pipeline.context import Options, prepare
from distill.pipeline.ensemble import with_banks
from distill.pipeline.image_size import resolve_image_size
from distill.pipeline.launch import launch
from distill.pipeline.provenance import about_data, changes, foreseen, teacher_record
from distill.pipeline.record import read_result
from distill.pipeline.source import find_teacher
from distill.pipeline.teacher import taught_by, with_folders
from distill.pipeline.verbs import resume_run
from distill.pipeline.worker import train_worker
from distill.recipe import Recipe
from distill.recipe.schema import DataSpec
from distill.results.runs import RunResult
from distill.runs import RunFolder, RunInfo, open_run
from distill.sweeps.folder import portable
from distill.sweeps.plan import no_validation

__all__ = ["PrunedTrial", "Trainer", "TrialFailedError", "TrialHooks", "refuse_mixture"]

#: Told an epoch and its ``val_top1``; True ends the trial.
Hopeless = Callable[[int, float], bool]


class PrunedTrial(InterruptedRunError):
    """A trial was ended early because others were better at the same epoch; its run can be resumed like any other."""

    exit_code = 0


class TrialFailedError(RunError):
    """A trial that cannot be trained as chosen: a loss that is not finite, too little memory. The sweep goes on."""


@dataclass(frozen=True)
class TrialHooks:
    """What a trial does besides training.

    Attributes:
        started: Told the run folder and how many epochs are behind it, when training begins.
        hopeless: Asked after each epoch.
        pause_at: After so many epochs training stops, saved, to be gone on with; None: it goes to its end.
    """

    started: Callable[[RunFolder, int], None]
    hopeless: Hopeless | None = None
    pause_at: int | None = None


class _Listener:
    """Hands events on, and ends a hopeless trial at the event after its epoch, so that its checkpoint is on disk."""

    def __init__(self, tell: Tell, watch: TrialHooks) -> None:
        self.tell, self.watch = tell, watch
        self.epochs = 0
        self.verdict: str | None = None

    def __call__(self, event: Event) -> None:
        self.tell(event)
        if self.verdict is not None:
            raise PrunedTrial(self.verdict)
        if isinstance(event, RunStarted):
            self.epochs = event.epochs
            self.watch.started(RunFolder(Path(event.run)), event.epoch)
        elif isinstance(event, EpochDone) and event.epoch < self.epochs:
            top1 = event.metrics["val_top1"]
            if self.watch.hopeless is not None and self.watch.hopeless(event.epoch, top1):
                self.verdict = f"pruned after epoch {event.epoch} of {self.epochs}: val_top1 {top1:.4f}"
            elif self.watch.pause_at is not None and event.epoch >= self.watch.pause_at:
                self.verdict = f"paused after epoch {event.epoch} of {self.epochs}"


@dataclass
class Trainer:
    """Trains trials, sharing what they have in common.

    Attributes:
        into: The folder of the trials' runs.
        teacher: What stands in for the recipes' teachers: a run, several, or an ONNX file; nothing where it is empty.
        teachers: The run folder of each teacher that was asked for; kept, so that a sweep that goes on asks the same.
    """

    options: Options
    into: Path
    teacher: tuple[str, ...] = ()
    teachers: dict[str, str] = field(default_factory=dict)
    _settled: dict[str, DataSpec] = field(default_factory=dict)
    _splits: dict[str, Splits] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Have what every trial would say told once."""
        self.options = replace(self.options, on_event=NotesOnce(self.options.tell))

    def resolved(self, recipe: Recipe) -> Recipe:
        """The recipe with its teacher's folder; the first look decides which run a name means.

        Raises:
            RunError: There is no such finished run.
            UsageError: What the recipe says of its teacher does not go with those that were named.
        """
        return self._taught(recipe, self._folder)

    def pinned(self, recipe: Recipe) -> Recipe:
        """The recipe with its teacher by name and number, as a recipe file has it: of that name the newest is another.

        Raises:
            RunError, UsageError: As :meth:`resolved`.
        """
        return self._taught(recipe, self._place)

    def _taught(self, recipe: Recipe, named: Callable[[str], str]) -> Recipe:
        recipe = taught_by(recipe, self.teacher)
        if (teacher := recipe.teacher) is None:
            return recipe
        if teacher.run is not None:
            teacher = teacher.model_copy(update={"run": named(teacher.run)})
        return recipe.model_copy(update={"teacher": with_folders(teacher, named)})

    def _folder(self, reference: str) -> str:
        runs_dir = self.options.runs_dir
        return str(open_run(runs_dir / self._place(reference), runs_dir=runs_dir).path)

    def _place(self, reference: str) -> str:
        """The folder of a run from the folder of runs: decided once."""
        if reference not in self.teachers:
            runs_dir = self.options.runs_dir
            self.teachers[reference] = portable(open_run(reference, runs_dir=runs_dir).path, runs_dir)
        return self.teachers[reference]

    def splits(self, recipe: Recipe) -> Splits:
        """The data of a recipe that is :meth:`resolved`, loaded once for all trials that share it.

        Raises:
            UsageError: There is no validation split.
        """
        spec = self._settled_data(recipe)
        key = spec.model_dump_json()
        if key in self._splits:
            return self._splits[key]
        splits = load_splits(spec, self.options.tell, unlabelled=True)
        for line in (splits.note or "").splitlines():
            self.options.tell(Note(line))
        if splits.val is None:
            raise no_validation()
        self._splits[key] = splits
        return self._splits[key]

    def _settled_data(self, recipe: Recipe) -> DataSpec:
        """Its data at the size it is kept at, which what the model takes and the teacher's size may decide."""
        asked = recipe.model_dump_json(include={"data": True, "model": {"input_size"}, "teacher": True})
        if asked not in self._settled:
            recipe = resolve_image_size(recipe, runs_dir=self.options.runs_dir, tell=self.options.tell)
            self._settled[asked] = recipe.data
        return self._settled[asked]

    def changes_since(self, before: RunInfo, recipe: Recipe) -> list[str]:
        """What a trial stood on, images and teacher, that is another now: such trials are not to be ranked together."""
        recipe = self.resolved(recipe)
        splits = self.splits(recipe)
        recipe = with_banks(recipe, self.options, splits=splits)
        about = None
        if (
            teacher := find_teacher(
                recipe,
                runs_dir=self.options.runs_dir,
                device=torch.device("cpu"),
                classes=splits.dataset.classes,
            )
        ) is not None:
            about = teacher_record(teacher)
        elif recipe.teacher is not None:
            about = foreseen(recipe, splits, None)
        return changes(before, data=about_data(splits), teacher=about)

    def train(self, recipe: Recipe, watch: TrialHooks) -> RunResult:
        """A new run.

        Raises:
            PrunedTrial: ``watch.hopeless`` said so.
            TrialFailedError: The trial cannot be trained as chosen.
        """
        options = replace(self.options, into=self.into, on_event=_Listener(self.options.tell, watch))
        resolved = self.resolved(recipe)
        splits = self.splits(resolved)
        resolved = with_banks(resolved, self.options, splits=splits)
        return _guarded(lambda: launch(train_worker, prepare(resolved, options, splits=splits)))

    def go_on(self, run: RunFolder, watch: TrialHooks) -> RunResult:
        """The rest of a run that was stopped, or the result of one that was not.

        Raises:
            PrunedTrial, TrialFailedError: As :meth:`train`.
        """
        if run.status == "finished":
            return read_result(run)
        options = replace(self.options, on_event=_Listener(self.options.tell, watch))
        return _guarded(lambda: resume_run(run.path, options=options))


def _guarded(train: Callable[[], RunResult]) -> RunResult:
    """What the trial's own choices caused is the trial's failure; a full disk, say, is the sweep's, and ends it."""
    try:
        return train()
    except (DivergedError, OutOfMemoryError) as error:
        raise TrialFailedError(error.message, hint=error.hint) from error


def refuse_mixture(what: str, changed: Sequence[str]) -> None:
    """Raise where something changed since a trial was trained.

    Raises:
        RunError: It did.
    """
    if changed:
        raise RunError(
            f"{what} stood on something else than is here now: {'; '.join(changed)}",
            hint="restore it, or begin another sweep: --name NAME",
        )
