"""MLflow: experiment ``$MLFLOW_EXPERIMENT_NAME`` or ``distill``, at ``$MLFLOW_TRACKING_URI``."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from distill.tracking.story import RunEnd, RunStart, table

__all__ = ["Mlflow"]

_STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
_LONGEST = 500  # characters of a parameter, the fewest that its servers take


class Mlflow:
    """Metrics by epoch, the recipe as parameters and file, plots and result as artifacts, by a client of its own."""

    def __init__(self) -> None:
        self._client: Any = None
        self._id = ""

    def start(self, run: RunStart) -> str:
        """Create the run, or set the one of that id running again."""
        self._client = import_module("mlflow").MlflowClient()
        if run.id:
            self._id = run.id
            self._client.update_run(run.id, status="RUNNING")
            return run.id
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", "distill")
        found = self._client.get_experiment_by_name(experiment)
        place = found.experiment_id if found else self._client.create_experiment(experiment)
        self._id = str(self._client.create_run(place, run_name=run.name).info.run_id)
        for key, value in run.settings.items():
            self._client.log_param(self._id, key, str(value)[:_LONGEST])
        self._client.log_text(self._id, run.recipe, "recipe.yaml")
        return self._id

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """One value a metric, the epoch as its step."""
        now = int(time.time() * 1000)
        for name, value in metrics.items():
            self._client.log_metric(self._id, name, value, timestamp=now, step=epoch)

    def end(self, ending: RunEnd) -> None:
        """Artifacts, the result's figures, and the status."""
        for picture in ending.pictures:
            self._client.log_artifact(self._id, str(picture), "plots")
        if ending.result:
            self._client.log_text(self._id, table(ending.result), "result.md")
            for key, value in ending.result.items():
                if isinstance(value, int | float):
                    self._client.log_metric(self._id, f"result/{key}", float(value))
        self._client.set_terminated(self._id, _STATUS.get(ending.status, "FAILED"))
