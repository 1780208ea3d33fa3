"""Run as a script, in a folder of its own: a run of the tiny baseline that stands still, or two processes that do.

The arguments are ``run`` or ``group``. What stands is native code that has let go of the interpreter's lock and goes
on through signals, as a kernel does that spins: a mutex that its own thread holds already.
"""

from __future__ import annotations

import ctypes
import sys
import time
from pathlib import Path

from lightning_fabric import Fabric

from distill.cli import main
from distill.cli.progress import ProgressPrinter
from distill.events import Event, StepDone
from distill.pipeline import Options
from distill.pipeline.context import Context, prepare
from distill.pipeline.launch import launch
from distill.recipe import load_recipe
from distill.team import watch

SILENCE_S = 1.0


def deaf() -> None:
    """Never comes back."""
    native, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(256)
    native.pthread_mutex_init(mutex, None)
    native.pthread_mutex_lock(mutex)
    native.pthread_mutex_lock(mutex)


def stand(_printer: ProgressPrinter, event: Event) -> None:
    """Listens to a run, up to the second step of its second epoch."""
    if isinstance(event, StepDone) and (event.epoch, event.step) == (1, 2):
        deaf()


def wait_for_a_stuck_one(fabric: Fabric, context: Context) -> None:
    """In each of two processes: the second one stands still, the first waits for it in a collective."""
    with watch.watching(rank=fabric.global_rank, silence_s=SILENCE_S):
        if fabric.global_rank == 1:
            deaf()
        time.sleep(3 * SILENCE_S)  # told here first, as on a busy machine on the way to the collective
        fabric.barrier()


if __name__ == "__main__":
    if sys.argv[1] == "run":
        watch.SILENCE_S = SILENCE_S
        ProgressPrinter.__call__ = stand
        main(["student", "--recipe", "tiny.yaml", "--device", "cpu", "--threads", "1"])
    options = Options(runs_dir=Path("runs"), device="cpu", devices=2, threads=1)
    launch(wait_for_a_stuck_one, prepare(load_recipe("tiny.yaml"), options))
