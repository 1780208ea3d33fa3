"""A search by Optuna: its study is the record, so that a killed search goes on, and several machines share one."""

from __future__ import annotations

import contextlib
import hashlib
import platform
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from distill.errors import MissingError, RecipeError, RunError, UsageError
from distill.events import Note
from distill.report.sweeps import TrialRow
from distill.runs import RunFolder, RunInfo
from distill.sweeps.folder import Definition, SweepFolder, redacted
from distill.sweeps.grid import finished_text, row_of_run
from distill.sweeps.plan import Base, Trial, takes_whole_numbers
from distill.sweeps.space import Range, Variable, value_of
from distill.sweeps.trainer import PrunedTrial, Trainer, TrialFailedError, Watch, refuse_mixture

__all__ = ["Search", "open_study", "require_optuna"]

_HEARTBEAT_S, _DEAD_AFTER_S = 60, 300
_FEW = 10  # finished trials, below which importances are noise
_DRIVERS = {"postgresql": "psycopg2-binary", "mysql": "mysqlclient", "mysql+pymysql": "pymysql", "redis": "redis"}
_STARTUP_TRIALS = 5  # none is pruned before so many are finished


def require_optuna() -> ModuleType:
    """The package, quiet.

    Raises:
        MissingError: It is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise MissingError(
            "--search needs Optuna, which is not installed", hint="pip install 'distill[sweep]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # what it would say of a failed trial, the sweep says
    return optuna


@contextlib.contextmanager
def open_study(folder: SweepFolder, definition: Definition) -> Iterator[Any]:
    """The study named after the folder, in its storage; begun where it is not there yet.

    Raises:
        MissingError: The storage's database driver is not installed.
        RunError: The storage cannot be opened.
        UsageError: The storage has another sweep of that name.
    """
    optuna = require_optuna()
    url = definition.storage or f"sqlite:///{(folder.path / 'study.db').absolute()}"
    storage = _open_storage(optuna, url, shared=definition.storage is not None)
    try:
        study = optuna.create_study(
            study_name=folder.path.name, storage=storage, direction="maximize", load_if_exists=True
        )
        _claim(study, definition, url)
        yield study
    finally:
        _close(storage)


def _open_storage(optuna: ModuleType, url: str, *, shared: bool) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # heartbeats are marked experimental
            if "redis" in url.partition(":")[0]:
                return optuna.storages.get_storage(url)
            beat = {"heartbeat_interval": _HEARTBEAT_S, "grace_period": _DEAD_AFTER_S} if shared else {}
            return optuna.storages.RDBStorage(url, **beat)
    except ImportError as error:
        raise MissingError(
            f"{redacted(url)}: its database driver is not installed ({redacted(str(error).splitlines()[0])})",
            hint=f"pip install {_DRIVERS.get(url.partition(':')[0], 'the driver that the URL names')}",
        ) from error
    except Exception as error:  # SQLAlchemy's and the drivers' own, whose bases are not to be imported here
        what = str(error).splitlines()[0].replace(url, redacted(url))
        raise RunError(
            f"cannot open the study in {redacted(url)}: {what}",
            hint="as in --storage sqlite:////shared/study.db or postgresql://user:password@host/database",
        ) from None


def _close(storage: Any) -> None:
    with contextlib.suppress(AttributeError):
        storage.scoped_session.remove()
        storage.engine.dispose()


def _claim(study: Any, definition: Definition, url: str) -> None:
    """One study is one recipe and one space, whichever machine asks."""
    mark = hashlib.sha256(repr(sorted(definition.identity.items())).encode()).hexdigest()
    before = study.user_attrs.get("distill_sweep")
    if before is None:
        study.set_user_attr("distill_sweep", mark)
    elif before != mark:
        raise UsageError(
            f"{redacted(url)} has a study {study.study_name} of another recipe or search",
            hint="give this sweep a name of its own: --name NAME",
        )


@dataclass
class Search:
    """Trains what the study suggests.

    Attributes:
        trials: How many the study shall have, over all machines.
        worker: Marks the trials of this sweep folder among those of other machines.
    """

    study: Any
    folder: SweepFolder
    trainer: Trainer
    base: Base
    variables: Sequence[Variable]
    trials: int
    prune: bool
    worker: str
    shared: bool

    def run(self) -> list[TrialRow]:
        """Train until the study has ``trials`` trials that are over, on whichever machines."""
        tell = self.trainer.options.tell
        self._refuse_mixture()
        self._fail_lost()
        self.folder.remove_orphans({trial.user_attrs["run"] for trial in self._all() if "run" in trial.user_attrs})
        first = self._count_over()
        if first:
            tell(Note(f"{first} trials are over already, of {self.trials}"))
        while self._count_over() + self._count_elsewhere() < self.trials:
            self._retry_lost()
            self._set_sampler()
            self.study.optimize(self._objective, n_trials=1, catch=(TrialFailedError,))
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

    def _objective(self, trial: Any) -> float:
        optuna = require_optuna()
        trial.set_user_attr("worker", self.worker)
        trial.set_user_attr("host", platform.node())
        choices = Trial({variable.key: self._suggest(trial, variable) for variable in self.variables})
        before = self._run_to_go_on_with(trial)
        place = f"{self._count_over() + 1} of {self.trials}"
        self.trainer.options.tell(Note(f"trial {trial.number}, {place}: {choices.label}"))
        watch = Watch(started=lambda run, epoch: self._enter(trial, choices, run, epoch), hopeless=self._asker(trial))
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
        done = [each.value for each in self._all() if each.state.name == "COMPLETE"]
        row = TrialRow(trial.number, {}, "finished", val_top1=result.val_top1, seconds=result.seconds)
        self.trainer.options.tell(Note(finished_text(row, max([*done, result.val_top1]))))
        return result.val_top1

    def _train(self, choices: Trial, before: RunFolder | None, watch: Watch) -> Any:
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
        if takes_whole_numbers(self.base, variable, self._others):
            return repr(trial.suggest_int(variable.key, int(variable.low), int(variable.high), log=variable.log))
        return repr(trial.suggest_float(variable.key, float(variable.low), float(variable.high), log=variable.log))

    @property
    def _others(self) -> Trial:
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

    def _count_elsewhere(self) -> int:
        """Trials at work on other machines."""
        return sum(
            trial.state.name == "RUNNING" and trial.user_attrs.get("worker", self.worker) != self.worker
            for trial in self._all()
        )

    def _fail_lost(self) -> None:
        """This folder is locked, so none of its trials can be at work: one that says so was killed."""
        optuna = require_optuna()
        for trial in self._all():
            is_ours = trial.user_attrs.get("worker", None if self.shared else self.worker) == self.worker
            if trial.state.name == "RUNNING" and is_ours:
                self.study.tell(trial.number, state=optuna.trial.TrialState.FAIL)

    def _retry_lost(self) -> None:
        """Queue again what was stopped or killed, here or (after its heartbeats ended) elsewhere, with its run."""
        trials = self._all()
        retried = {trial.user_attrs.get("retry_of") for trial in trials}
        for trial in trials:
            if trial.state.name == "FAIL" and not _is_over(trial) and trial.number not in retried and trial.params:
                attrs = {key: trial.user_attrs[key] for key in ("run", "worker") if key in trial.user_attrs}
                self.study.enqueue_trial(trial.params, user_attrs=attrs | {"retry_of": trial.number})

    def _run_to_go_on_with(self, trial: Any) -> RunFolder | None:
        """The run that a stopped trial left here."""
        if "retry_of" not in trial.user_attrs:
            return None
        lost = next(each for each in self._all() if each.number == trial.user_attrs["retry_of"])
        if lost.user_attrs.get("worker") != self.worker or "run" not in lost.user_attrs:
            return None
        run = self._run_of(lost.user_attrs)
        return run if run.path.is_dir() and not run.never_began() else None

    def _run_of(self, attrs: Mapping[str, Any]) -> RunFolder:
        return self.folder.run_of(attrs["run"], self.trainer.options.runs_dir)

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
        epochs, seconds = len(reported) or None, trial.duration.total_seconds() if trial.duration else None
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
