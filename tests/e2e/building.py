"""Run as a script: one of several builders of a bank (see test_builders.py).

The arguments are a recipe, a teacher's run, the bank, how many views, and a file: where it is named, this builder makes
it at its first answer and stands still for ever. Prints how many files it stored.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import distill.teaching.bank_info
from distill.events import Event, StageProgress
from distill.pipeline import Options
from distill.pipeline.banks import build_bank
from distill.recipe import load_recipe
from distill.teaching.bank import Bank

distill.teaching.bank_info._CHUNK_BYTES = 256 + 20 * 50  # 50 images a file
STORED = []


def put(bank: Bank, number: int, part: int, *rest: object) -> None:
    STORED.append((number, part))
    _PUT(bank, number, part, *rest)


_PUT, Bank.put = Bank.put, put


def main(recipe: Path, teacher: str, bank: Path, views: int, stands: str) -> None:
    def listen(event: Event) -> None:
        if isinstance(event, StageProgress) and event.stage == "asking the teacher":
            if stands:
                Path(stands).touch()
                time.sleep(3600)
            time.sleep(0.3)  # so that another one has its share

    options = Options(runs_dir=bank.parent / "runs", device="cpu", threads=1, on_event=listen)
    build_bank(load_recipe(recipe), teacher=teacher, views=views, path=bank, options=options)
    print(len(STORED))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
