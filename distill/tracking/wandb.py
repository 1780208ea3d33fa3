"""Weights & Biases: its project is ``$WANDB_PROJECT`` or ``distill``; offline with ``WANDB_MODE=offline``."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from distill.tracking.story import RunEnd, RunStart

__all__ = ["Wandb"]


class Wandb:
    """Metrics by epoch, the recipe as configuration, plots as images, the result as summary and table."""

    def __init__(self) -> None:
        self._wandb: Any = None
        self._run: Any = None

    def start(self, run: RunStart) -> str:
        """Begin, or go on with the run of that id; nothing is asked on the terminal."""
        self._wandb = import_module("wandb")
        name = run.id or secrets.token_hex(4)
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", "distill"),
            id=name,
            name=run.name,
            resume="allow",
            config=dict(run.settings),
            dir=str(run.folder),
            # Where nobody is logged in it asks on a terminal; who trains is not there to answer. And another run of
            # this process that is not over, as a notebook may have one, is neither told of this one nor ended with it.
            settings=self._wandb.Settings(console="off", silent=True, login_timeout=1, reinit="create_new"),
        )
        self._run.define_metric("epoch")
        self._run.define_metric("*", step_metric="epoch")
        return name

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Steps are wandb's own and the epoch is the axis: an epoch that is told again after a resume is no error."""
        self._run.log({"epoch": epoch, **metrics})

    def end(self, ending: RunEnd) -> None:
        """Summary, table, pictures; then wait until all is written or sent."""
        if ending.result:
            self._run.summary.update({f"result/{key}": value for key, value in ending.result.items()})
            rows = [[key, str(value)] for key, value in ending.result.items()]
            self._run.log({"result": self._wandb.Table(columns=["figure", "value"], data=rows)})
        if ending.pictures:
            self._run.log({f"plots/{each.stem}": self._wandb.Image(str(each)) for each in ending.pictures})
        self._run.finish(exit_code=0 if ending.status == "finished" else 1)
