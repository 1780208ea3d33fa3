"""Run as a script: one worker of a search that several share (see test_sweeping.py).

The arguments are this worker's folder, the study's storage, how many trials, and in which of its own this worker stands
still until its folder has a file "go"; 0: in none. Signs of life are given and missed within seconds.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from distill.events import EpochDone, Event, RunStarted
from distill.pipeline import Options
from distill.recipe import parse_recipe
from distill.sweeps import other_workers, sweep

RECIPE = """
schema_version: 1
name: tiny
role: baseline
data: {name: synthetic, limit: 80, test_limit: 20}
model: {source: students, name: tiny, norm: false}
train: {epochs: 2, batch_size: 40, seed: 3}
"""
SEARCH = ("optim.lr=1e-4:1e-1:log", "train.batch_size=20:60")


class Worker:
    """Tells what it does, and stands still in a trial."""

    def __init__(self, folder: Path, stands_at: int) -> None:
        self.folder, self.stands_at, self.begun = folder, stands_at, 0

    def __call__(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self.begun += 1
        if isinstance(event, EpochDone) and self.begun == self.stands_at:
            (self.folder / "stands").touch()
            while not (self.folder / "go").exists():
                time.sleep(0.02)


def main(folder: Path, storage: str, trials: int, stands_at: int) -> None:
    other_workers.BEAT_S, other_workers.DEAD_AFTER_S = 0.2, 4.0
    folder.mkdir(exist_ok=True)
    options = Options(runs_dir=folder / "runs", device="cpu", threads=1, on_event=Worker(folder, stands_at))
    recipe = parse_recipe(RECIPE, source="tiny")
    report = sweep(recipe, search=SEARCH, trials=trials, storage=storage, prune=False, options=options)
    print(len(report.trials))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
