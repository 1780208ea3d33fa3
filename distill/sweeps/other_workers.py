"""Trials of other machines on the same study: which of them are at work, and which died with their worker.

Whoever trains writes a number beside its trial that grows by one every ``BEAT_S``. A worker that sees a number stand
still for ``DEAD_AFTER_S`` of its own clock takes the trial over: clocks of machines are never compared, and it works
alike in a database and in a journal.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["RETRY_OF", "Others", "is_replaced_already", "is_surplus", "never_began", "trial_heartbeat"]

BEAT_S, DEAD_AFTER_S = 20.0, 180.0

BEAT, RETRY_OF = "beat", "retry_of"


@contextlib.contextmanager
def trial_heartbeat(trial: Any) -> Iterator[threading.Event]:
    """Say now and then that a trial is at work; what is yielded is set once somebody else has ended it."""
    over, taken = threading.Event(), threading.Event()
    thread = threading.Thread(target=_beat, args=(trial, over, taken), name="trial's beat", daemon=True)
    thread.start()
    try:
        yield taken
    finally:
        over.set()
        thread.join()


def _beat(trial: Any, over: threading.Event, taken: threading.Event) -> None:
    import optuna

    number = 0
    while not over.is_set():
        number += 1
        try:
            trial.set_user_attr(BEAT, number)
        except optuna.exceptions.UpdateFinishedTrialError:
            taken.set()
            return
        except Exception:  # a storage that is away for a moment; who trains will say so where it stays away
            pass
        over.wait(BEAT_S)


@dataclass
class Others:
    """The trials that other workers are at, as this one has seen them.

    Attributes:
        worker: This one's mark.
    """

    worker: str
    _seen: dict[int, tuple[Any, float]] = field(default_factory=dict)
    _alive: set[int] = field(default_factory=set)

    def look(self, trials: Sequence[Any]) -> None:
        """Note the beats of all trials at work elsewhere."""
        now = time.monotonic()
        for trial in self.at_work(trials):
            beat = trial.user_attrs.get(BEAT)
            before = self._seen.get(trial.number)
            if before is None or before[0] != beat:
                self._seen[trial.number] = (beat, now)
                if before is not None:
                    self._alive.add(trial.number)

    def listen_anew(self) -> None:
        """Forget who was heard of: who lived a trial ago may be dead by now."""
        self._alive.clear()

    def at_work(self, trials: Sequence[Any]) -> list[Any]:
        """Trials that say so, of other workers; one without a mark has only just begun."""
        running = [each for each in trials if each.state.name == "RUNNING"]
        return [each for each in running if each.user_attrs.get("worker") != self.worker]

    def dead(self, trials: Sequence[Any]) -> list[Any]:
        """Those of which nothing was heard for too long."""
        late = time.monotonic() - DEAD_AFTER_S
        return [each for each in self.at_work(trials) if self._seen.get(each.number, (None, late + 1))[1] < late]

    def unknown(self, trials: Sequence[Any]) -> list[Any]:
        """Those of which nothing was heard since :meth:`listen_anew`: nobody can say yet whether they are at work."""
        return [each for each in self.at_work(trials) if each.number not in self._alive]


def never_began(trial: Any) -> bool:
    """Whether a trial ended before anything was chosen for it."""
    return trial.state.name == "FAIL" and not trial.params


def is_replaced_already(trial: Any, trials: Sequence[Any]) -> bool:
    """Whether another replaces the same lost one: several workers may have queued it again, and the first counts."""
    lost = trial.user_attrs.get(RETRY_OF)
    return lost is not None and any(
        each.user_attrs.get(RETRY_OF) == lost and each.number < trial.number and not never_began(each)
        for each in trials
    )


def is_surplus(trial: Any, trials: Sequence[Any], *, wanted: int) -> bool:
    """Whether trials enough came before this one: several workers may have begun the last one at once."""
    earlier = [each for each in trials if each.number < trial.number]
    return sum(each.state.name != "FAIL" or "failed" in each.user_attrs for each in earlier) >= wanted
