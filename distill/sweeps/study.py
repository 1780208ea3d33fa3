"""A search by Optuna: its study is the record, so that a killed search goes on, and several machines share one."""

from __future__ import annotations

import contextlib
import hashlib
import platform
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from distill.errors import RecipeError
from distill.events import Note
from distill.results.sweeps import TrialRow
from distill.runs import RunFolder, RunInfo
from distill.sweeps.folder import SweepFolder
from distill.sweeps.grid import finished_text, row_of_run
from distill.sweeps.other_workers import RETRY_OF, Others, is_replaced_already, is_surplus, never_began, trial_heartbeat
from distill.sweeps.plan import BaseRecipe, Trial, takes_whole_numbers
from distill.sweeps.space import Range, Variable, value_of
from distill.sweeps.storage import require_optuna
from distill.sweeps.trainer import PrunedTrial, Trainer, TrialFailedError, TrialHooks, refuse_mixture
from distill.text import counted

__all__ = ["StudyRunner"]

_FEW = 10  # finished trials, below which importances are noise
_STARTUP_TRIALS = 5  # none is pruned before so many are finished
_LOOK_S = 1.0


class _WithdrawnError(Exception):
    """A trial that is none: another worker was first."""


@dataclass
class StudyRunner:
    """Trains what the study suggests.

    Attributes:
        trials: How many the study shall have, over all machines.
        worker: Marks the trials of this sweep folder among those of other machines.
    """

    study: Any
    folder: SweepFolder
    trainer: Trainer
    base: BaseRecipe
    variables: Sequence[Variable]
    trials: int
    prune: bool
    worker: str
    shared: bool
    other_workers: Others = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.other_workers = Others(self.worker)

    def run(self) -> list[TrialRow]:
        """Train until the study has ``trials`` trials that are over, on whichever machines."""
        tell = self.trainer.options.tell
        self._refuse_mixture()
        self._fail_lost()
        self.folder.remove_orphans({trial.user_attrs["run"] for trial in self._all() if "run" in trial.user_attrs})
        first = self._count_over()
        if first:
            tell(Note(f"{first} trials are over already, of {self.trials}"))
        while self._are_wanted():
            self._retry_lost()
            self._set_sampler()
            self._train_one()
        return [self._row(trial) for trial in self._all() if not self._is_replaced(trial)]

    def _refuse_mixture(self) -> None:
        """Refuse to choose by trials on some images, or of some teacher, and on others, on whichever machine.

        Raises:
            RunError: A trial stood on something that has changed since.
        """
        for trial in self._all():
            if (stood_on := trial.user_attrs.get("stood_on")) is not None:
                recipe = self.base.recipe_of(self.choices_of(trial.number))
                changed = self.trainer.changes_since(RunInfo(**stood_on), recipe)
                refuse_mixture(f"{self.folder.path}: trial {trial.number}", changed)

    def choices_of(self, number: int) -> Trial:
        """What the study chose for a trial."""
        chosen = next(trial for trial in self._all() if trial.number == number)
        return Trial({key: _text(value) for key, value in chosen.params.items()})

    def importances(self) -> dict[str, float] | None:
        """Shares by fANOVA; None where there are too few trials, one key, or no differences."""
        optuna = require_optuna()
        done = [trial for trial in self._all() if trial.state.name == "COMPLETE"]
        if len(done) < _FEW or len(self.variables) < 2 or len({trial.value for trial in done}) < 2:
            return None
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shares = optuna.importance.get_param_importances(self.study, evaluator=evaluator)
        return {key: float(share) for key, share in shares.items()}

    @property
    def log_keys(self) -> list[str]:
        """The keys searched on a logarithmic scale."""
        return [variable.key for variable in self.variables if isinstance(variable, Range) and variable.log]

    # One trial

    def _train_one(self) -> None:
        optuna = require_optuna()
        trial = self.study.ask()
        states, value = optuna.trial.TrialState, None
        state = states.FAIL  # also where it is stopped: it is tried again
        try:
            with trial_heartbeat(trial) as taken:
                try:
                    value, state = self._objective(trial), None
                except optuna.TrialPruned:
                    state = states.PRUNED
                except (TrialFailedError, _WithdrawnError):
                    pass
                except optuna.exceptions.UpdateFinishedTrialError:
                    taken.set()
        finally:  # when no beat is under way: one that met its own ending would take it for another worker's
            self._tell(trial, value, state=state)
        if taken.is_set():
            what = f"trial {trial.number}: nothing was heard of it for too long, and another worker has taken it over"
            self.trainer.options.tell(Note(what, "warning"))

    def _tell(self, trial: Any, value: float | None = None, *, state: Any = None) -> None:
        """Write down how a trial ended, unless another worker took it over meanwhile."""
        with contextlib.suppress(require_optuna().exceptions.UpdateFinishedTrialError):
            self.study.tell(trial, value, state=state, skip_if_finished=True)

    def _objective(self, trial: Any) -> float:
        optuna = require_optuna()
        trial.set_user_attr("worker", self.worker)
        trial.set_user_attr("host", platform.node())
        trials = self._all()
        if is_replaced_already(trial, trials) or is_surplus(trial, trials, wanted=self.trials):
            raise _WithdrawnError
        choices = Trial({variable.key: self._suggest(trial, variable) for variable in self.variables})
        before = self._run_to_go_on_with(trial)
        place = f"{self._count_over() + 1} of {self.trials}"
        self.trainer.options.tell(Note(f"trial {trial.number}, {place}: {choices.label}"))
        watch = TrialHooks(
            started=lambda run, epoch: self._enter(trial, choices, run, epoch), hopeless=self._asker(trial)
        )
        try:
            result = self._train(choices, before, watch)
        except PrunedTrial as pruned:
            self._run_of(trial.user_attrs).write_info(pruned=True)
            self.trainer.options.tell(Note(f"trial {trial.number}: {pruned.message}"))
            raise optuna.TrialPruned(pruned.message) from None
        except TrialFailedError as error:
            trial.set_user_attr("failed", error.message)
            self.trainer.options.tell(Note(f"trial {trial.number} failed: {error.message}", "warning"))
            raise
        assert result.val_top1 is not None, "a sweep has a validation split"
        last = self._run_of(trial.user_attrs).metrics()[-1]  # pruning is asked about those before it alone
        trial.report(last["val_top1"], last["epoch"])
        done = [each.value for each in self._all() if each.state.name == "COMPLETE"]
        row = TrialRow(trial.number, {}, "finished", val_top1=result.val_top1, seconds=result.seconds)
        self.trainer.options.tell(Note(finished_text(row, max([*done, result.val_top1]))))
        return result.val_top1

    def _train(self, choices: Trial, before: RunFolder | None, watch: TrialHooks) -> Any:
        if before is not None:
            return self.trainer.go_on(before, watch)
        try:
            recipe = self.base.recipe_of(choices)
            return self.trainer.train(recipe, watch)
        except RecipeError as error:  # the corners were checked; what lies between may still be over the budget
            raise TrialFailedError("; ".join(error.message.splitlines()), hint=error.hint) from error

    def _suggest(self, trial: Any, variable: Variable) -> str:
        if not isinstance(variable, Range):
            return trial.suggest_categorical(variable.key, list(variable.values))
        if takes_whole_numbers(self.base, variable, self._fixed_choices):
            return repr(trial.suggest_int(variable.key, int(variable.low), int(variable.high), log=variable.log))
        return repr(trial.suggest_float(variable.key, float(variable.low), float(variable.high), log=variable.log))

    @property
    def _fixed_choices(self) -> Trial:
        """Any valid choice of the keys that are no ranges."""
        return Trial({each.key: each.values[0] for each in self.variables if not isinstance(each, Range)})

    def _enter(self, trial: Any, choices: Trial, run: RunFolder, epoch: int) -> None:
        trial.set_user_attr("run", self.folder.entry_of(run))
        trial.set_user_attr("stood_on", _stands_on(run.info))
        params = {key: value_of(key, text) for key, text in choices.params.items()}
        about = {"name": self.folder.path.name, "trial": trial.number, "params": params}
        run.write_info(sweep=about, pruned=False)
        for line in run.metrics()[:epoch]:  # a run that goes on: the pruner should know what it did before
            trial.report(line["val_top1"], line["epoch"])

    def _asker(self, trial: Any) -> Any:
        def hopeless(epoch: int, top1: float) -> bool:
            trial.report(top1, epoch)
            return self.prune and trial.should_prune()

        return hopeless

    def _set_sampler(self) -> None:
        """A sampler and a pruner for the next trial.

        The sampler is seeded by the trial's place: one seed for all would repeat its first draws whenever a search
        goes on. Machines that share a study may stand at the same place, so there the machine counts too.
        """
        optuna = require_optuna()
        place = f"{self.folder.path.name} {len(self._all())} {self.worker if self.shared else ''}"
        seed = int.from_bytes(hashlib.sha256(place.encode()).digest()[:4], "big")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # constant_liar was experimental once
            self.study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=self.shared)
        epochs = self.base.recipe.train.epochs
        self.study.pruner = optuna.pruners.MedianPruner(
            n_startup_trials=_STARTUP_TRIALS, n_warmup_steps=max(1, epochs // 10)
        )

    # The study's record

    def _all(self) -> list[Any]:
        return self.study.get_trials(deepcopy=False)

    def _count_over(self) -> int:
        return sum(_is_over(trial) for trial in self._all())

    def _are_wanted(self) -> bool:
        """Whether another trial is to be begun. Before the last word is spoken, dead workers' trials are looked for."""
        self.other_workers.listen_anew()
        told = False
        while True:
            trials = self._all()
            self.other_workers.look(trials)
            if dead := self.other_workers.dead(trials):
                for trial in dead:
                    self.trainer.options.tell(Note(f"trial {trial.number}: its worker has died; it is tried again"))
                    self._fail(trial)
                trials = self._all()
            # of one and the same look: a trial that ends between two would be over and at work
            if sum(map(_is_over, trials)) + len(self.other_workers.at_work(trials)) < self.trials:
                return True
            if not (unknown := self.other_workers.unknown(trials)):
                return False
            if not told:
                what = f"listening whether {counted(len(unknown), 'trial')} of other workers are still at work"
                self.trainer.options.tell(Note(what))
                told = True
            time.sleep(_LOOK_S)

    def _fail(self, trial: Any) -> None:
        """End a trial that nobody is at, unless somebody has."""
        self._tell(trial.number, state=require_optuna().trial.TrialState.FAIL)

    def _fail_lost(self) -> None:
        """This folder is locked, so none of its trials can be at work: one that says so was killed."""
        for trial in self._all():
            is_ours = trial.user_attrs.get("worker", None if self.shared else self.worker) == self.worker
            if trial.state.name == "RUNNING" and is_ours:
                self._fail(trial)

    def _retry_lost(self) -> None:
        """Queue again what was stopped or killed, here or elsewhere, with its run."""
        trials = self._all()
        retried = {trial.user_attrs.get(RETRY_OF) for trial in trials if not never_began(trial)}
        for trial in trials:
            if trial.state.name == "FAIL" and not _is_over(trial) and trial.number not in retried and trial.params:
                attrs = {key: trial.user_attrs[key] for key in ("run", "worker") if key in trial.user_attrs}
                self.study.enqueue_trial(trial.params, user_attrs=attrs | {RETRY_OF: trial.number})

    def _run_to_go_on_with(self, trial: Any) -> RunFolder | None:
        """The run that a stopped trial left here."""
        if RETRY_OF not in trial.user_attrs:
            return None
        lost = next(each for each in self._all() if each.number == trial.user_attrs[RETRY_OF])
        if lost.user_attrs.get("worker") != self.worker or "run" not in lost.user_attrs:
            return None
        run = self._run_of(lost.user_attrs)
        return run if run.path.is_dir() and not run.never_began() else None

    def _run_of(self, attrs: Mapping[str, Any]) -> RunFolder:
        return self.folder.run_of(attrs["run"])

    def _is_replaced(self, trial: Any) -> bool:
        """Stopped before it was over, and tried again since; or queued only."""
        if trial.state.name == "WAITING":
            return True
        return trial.state.name == "FAIL" and not _is_over(trial)

    def _row(self, trial: Any) -> TrialRow:
        params = {key: value_of(key, _text(value)) for key, value in trial.params.items()}
        status: Any = {"COMPLETE": "finished", "PRUNED": "pruned", "RUNNING": "running"}.get(trial.state.name, "failed")
        is_here = trial.user_attrs.get("worker") == self.worker and "run" in trial.user_attrs
        run = self._run_of(trial.user_attrs) if is_here else None
        error = trial.user_attrs.get("failed")
        reported = list(trial.intermediate_values.values())
        top1 = trial.value if status == "finished" else max(reported, default=None)
        epochs = max(trial.intermediate_values, default=None)
        seconds = trial.duration.total_seconds() if trial.duration else None
        if run is not None and run.path.is_dir():
            row = row_of_run(trial.number, params, run)
            return TrialRow(trial.number, params, status, None, top1, row.epochs, row.seconds, row.run, error)
        return TrialRow(trial.number, params, status, None, top1, epochs, seconds, None, error)


def _stands_on(info: RunInfo) -> dict[str, Any]:
    """What of run.json decides whether trials may be ranked together."""
    data = {key: (info.data or {}).get(key) for key in ("fingerprint", "val_fingerprint")}
    return {"data": data, "teacher": {key: (info.teacher or {}).get(key) for key in ("sha256", "architecture")}}


def _is_over(trial: Any) -> bool:
    """Whether it will not be tried again: finished, pruned, or failed as it would again."""
    return trial.state.name in ("COMPLETE", "PRUNED") or (trial.state.name == "FAIL" and "failed" in trial.user_attrs)


def _text(value: Any) -> str:
    """What Optuna chose, as ``--set`` takes it: categories are text already."""
    return value if isinstance(value, str) else repr(value)
