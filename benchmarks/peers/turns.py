"""All contestants in turn, round by round, in another order each time, so that a slow minute is everybody's."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.peers.setting import Setting

__all__ = ["NAMES", "Entry", "take_turns"]

NAMES = ("distill", "distill, live", "torchdistill", "timm.task", "modelopt")


@dataclass
class Entry:
    """One contestant and what it was measured at.

    Attributes:
        about: Version, choices, bank, and how far its loss is from the definition.
        warmup: The cost of the first epoch, which is in no average: it compiles, starts workers, fills caches.
        rounds: The cost of each later epoch.
        checks: What was found at the end.
        missing: Why it does not take part, or None.
    """

    name: str
    about: dict[str, Any] = field(default_factory=dict)
    warmup: Any = None
    rounds: list[Any] = field(default_factory=list)
    checks: dict[str, bool] = field(default_factory=dict)
    missing: str | None = None


def take_turns(setting: Setting, names: Sequence[str], serve: Callable[..., None]) -> list[Entry]:
    """Start a process for each name, measure ``setting.rounds`` epochs of each, and end them.

    Args:
        serve: What a process runs, ``serve(name, setting, pipe)``; picklable.
    """
    entries, pipes = [Entry(name) for name in names], {}
    with ExitStack() as stack:
        for entry in entries:
            _say(f"starting {entry.name} ...")
            pipe = stack.enter_context(_process(serve, entry.name, setting))
            answer = _received(pipe)
            entry.missing = answer.get("missing")
            if entry.missing is None:
                entry.about, pipes[entry.name] = answer["ready"], pipe
                entry.warmup = _ask(pipe, "epoch")
        present = [entry for entry in entries if entry.missing is None]
        for number in range(setting.rounds):
            _say(f"round {number + 1} of {setting.rounds} ...")
            turn = number % len(present)
            for entry in present[turn:] + present[:turn]:
                entry.rounds.append(_ask(pipes[entry.name], "epoch"))
        for entry in present:
            entry.checks = _ask(pipes[entry.name], "end")
    return entries


def _ask(pipe: Connection, what: str) -> Any:
    pipe.send(what)
    return _received(pipe)


def _received(pipe: Connection) -> Any:
    answer = pipe.recv()
    if isinstance(answer, dict) and "failed" in answer:
        raise RuntimeError(f"a contestant failed:\n{answer['failed']}")
    return answer


@contextmanager
def _process(serve: Callable[..., None], name: str, setting: Setting) -> Iterator[Connection]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(serve, name, setting, theirs, multiprocessing.get_start_method())
    )
    process.start()
    theirs.close()  # so that a process that dies is noticed
    try:
        yield ours
    finally:
        ours.close()
        process.join(10)
        if process.is_alive():
            process.terminate()


def _serve(serve: Callable[..., None], name: str, setting: Setting, pipe: Connection, start_method: str) -> None:
    # A spawned process would spawn in its turn; DataLoaders shall start their workers the platform's usual way.
    multiprocessing.set_start_method(start_method, force=True)
    serve(name, setting, pipe)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
