"""A finished run whose weights no training of its own gave it: cut from another's, or the mean of several."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from distill.data.splits import Splits
from distill.evaluation.cost import spec_cost
from distill.fingerprint import state_sha256
from distill.models.own_answers import keep_own_answers
from distill.models.trained import load_trained
from distill.pipeline.context import Context
from distill.pipeline.record import recorded
from distill.recipe.model_specs import PythonModel
from distill.runs import RunFolder, utc_now
from distill.runs.checkpoints import save_checkpoint, set_link
from distill.teaching.identity import write_identity

__all__ = ["finish_untrained", "holding_weights"]


@contextmanager
def holding_weights(
    context: Context,
    splits: Splits,
    state: Mapping[str, Tensor],
    *,
    teacher: dict[str, Any] | None,
    made_from: Mapping[str, Any],
) -> Iterator[RunFolder]:
    """A new run's folder that holds ``state``, until :func:`finish_untrained` says that it is finished.

    Args:
        teacher: What is known of the teacher.
        made_from: Where the weights are from, as run.json keeps it (:mod:`distill.runs.origin`).
    """
    weights = dict(state)
    with recorded(context, splits, teacher=teacher, initial=state_sha256(weights), made_from=made_from) as run:
        place = save_checkpoint(
            run.checkpoints, epoch=0, step=0, model_state=weights, resume_state={}, meta={"metrics": {}}
        )
        for link in ("best", "last"):
            set_link(run.checkpoints, link, place)
        write_identity(run)
        if isinstance(spec := context.recipe.model, PythonModel):
            network = load_trained(run, device=torch.device("cpu"), precision="fp32")
            keep_own_answers(run, network.module, spec, weights)
        yield run


def finish_untrained(run: RunFolder, *, teacher: dict[str, Any] | None, val_top1: float | None, line: str) -> None:
    """Write the result of a run that trained for no epoch, and say that it is finished.

    Args:
        val_top1: Of its weights; None where there are no validation images.
        line: For run.log.
    """
    cost = spec_cost(run.recipe().model, len(run.classes)).figures
    run.write_result(
        cost.to_json()
        | {"epochs": 0, "best_epoch": 0, "val_top1": val_top1, "val_loss": None}
        | {"seconds": 0.0, "images_per_s": 0.0}
    )
    run.log(line)
    run.write_info(status="finished", finished=utc_now(), exit_code=0, teacher=teacher)
    run.point_latest()
