"""What compiling costs: kept to one shape of batch, and told apart from training."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import torch

__all__ = ["CompileClock", "compile_clock", "uncompiled"]


def uncompiled() -> contextlib.AbstractContextManager[None]:
    """What is called within runs as it is written, though it was compiled, and nothing is compiled for it."""
    stance: contextlib.AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
    return stance


class CompileClock:
    """Seconds spent compiling so far, backward passes too, which are compiled when they are first needed.

    Attributes:
        seconds: Over all threads; what is being compiled now is not in it.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._since = 0.0

    def begin(self, _about: Any) -> None:
        """Compiling begins."""
        self._since = time.monotonic()

    def end(self, _about: Any) -> None:
        """Compiling ends."""
        self.seconds += time.monotonic() - self._since


@contextlib.contextmanager
def compile_clock(wanted: bool) -> Iterator[CompileClock]:
    """A clock that runs while torch compiles; where nothing will be compiled it stands, and costs no import."""
    clock = CompileClock()
    if not wanted:
        yield clock
        return
    from torch._dynamo.callback import callback_handler as handler  # a second to import

    handler.register_start_callback(clock.begin)
    handler.register_end_callback(clock.end)
    try:
        yield clock
    finally:
        handler.remove_start_callback(clock.begin)
        handler.remove_end_callback(clock.end)
