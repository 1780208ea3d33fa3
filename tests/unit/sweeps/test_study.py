"""What a search makes of a study that others change while it looks, without another worker and without waiting."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from distill.events import Note
from distill.sweeps import study as searching
from distill.sweeps.study import StudyRunner

optuna = pytest.importorskip("optuna")


def _search(study: Any, told: list[str], *, trials: int) -> StudyRunner:
    def tell(event: Any) -> None:
        if isinstance(event, Note):
            told.append(event.message)

    nobody: Any = None
    trainer: Any = SimpleNamespace(options=SimpleNamespace(tell=tell))
    return StudyRunner(study, nobody, trainer, nobody, (), trials, prune=False, worker="me", shared=True)


class _Changing:
    """A study whose trials are others each time it is asked, up to the last of them."""

    def __init__(self, *looks: list[Any]) -> None:
        self.looks = list(looks)

    def get_trials(self, *, deepcopy: bool) -> list[Any]:
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]


def _trial(state: str, beat: int) -> Any:
    return SimpleNamespace(number=0, state=SimpleNamespace(name=state), user_attrs={"worker": "other", "beat": beat})


def test_a_trial_that_ends_while_they_are_counted_counts_once() -> None:
    study = _Changing([_trial("RUNNING", 1)])
    search = _search(study, [], trials=2)
    assert search._are_wanted()
    at_work, over = [_trial("RUNNING", 2)], [_trial("COMPLETE", 2)]
    for looks in range(1, 4):  # after so many looks it is over
        study.looks = [*[at_work] * looks, over]
        search.other_workers._seen[0] = (1, search.other_workers._seen[0][1])
        assert search._are_wanted(), looks  # one is over or at work, and two shall be


def test_what_is_over_is_not_begun_again() -> None:
    trials = [_trial("COMPLETE", 1), _trial("COMPLETE", 1)]
    assert not _search(_Changing(trials), [], trials=2)._are_wanted()


@pytest.mark.parametrize(("ends", "state"), [(0.5, "COMPLETE"), (KeyboardInterrupt(), "FAIL")])
def test_the_last_beat_comes_before_the_own_ending(ends: Any, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken, told = threading.Event(), []

    @contextlib.contextmanager
    def beating_until_the_last(trial: Any) -> Iterator[threading.Event]:
        try:
            yield taken
        finally:
            try:
                trial.set_user_attr("beat", 1)
            except optuna.exceptions.UpdateFinishedTrialError:
                taken.set()

    def objective(_: Any) -> float:
        if isinstance(ends, BaseException):
            raise ends
        return ends

    study = optuna.create_study(direction="maximize")
    search = _search(study, told, trials=1)
    monkeypatch.setattr(searching, "trial_heartbeat", beating_until_the_last)
    monkeypatch.setattr(search, "_objective", objective)
    with contextlib.suppress(KeyboardInterrupt):
        search._train_one()
    assert [trial.state.name for trial in study.trials] == [state]
    assert not taken.is_set()
    assert told == []
