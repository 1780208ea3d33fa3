"""Where training stands: what a checkpoint saves of it and takes up again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from distill.errors import RunError
from distill.events import CheckpointSaved
from distill.runs.checkpoints import Checkpoint, prune, save_checkpoint, set_link
from distill.team.consensus import Consensus
from distill.train.epoch_sums import Tally
from distill.train.saver import Saver, snapshot
from distill.train.seeds import restore_generators, snapshot_generators
from distill.train.step import Learner

__all__ = ["TrainProgress", "restore", "save"]


@dataclass
class TrainProgress:
    """How far training is and how well it went.

    Attributes:
        epoch: Whole epochs that are done, and ``step`` steps of the next.
        best: The best of ``train.monitor`` so far, larger is better.
        waited_from: What early stopping wants to see exceeded, and how many epochs it has ``waited`` for that.
    """

    epoch: int = 0
    step: int = 0
    best: float | None = None
    waited_from: float | None = None
    waited: int = 0

    def judge(self, value: float, *, min_delta: float) -> bool:
        """Whether an epoch of this value (larger is better) is the best so far."""
        if self.waited_from is None or value > self.waited_from + min_delta:
            self.waited_from, self.waited = value, 0
        else:
            self.waited += 1
        is_best = self.best is None or value > self.best  # however little: the margin is for patience alone
        self.best = value if is_best else self.best
        return is_best


def save(
    folder: Path | None,
    progress: TrainProgress,
    learner: Learner,
    tally: Tally,
    *,
    consensus: Consensus,
    device: torch.device,
    metrics: dict[str, float],
    is_best: bool,
    saver: Saver,
) -> Iterator[CheckpointSaved]:
    """Write a checkpoint of all processes; only the one that has a ``folder`` does. Tells what is whole now."""
    own = {"tally": tally.state_dict() if progress.step else None, "generators": snapshot_generators(device)}
    ranks = consensus.gather(own)
    if folder is None:
        yield CheckpointSaved("", is_best)
        return
    model, resume = learner.shipped.state_dict(), asdict(progress) | learner.state_dict() | {"ranks": ranks}
    if saver.behind:
        model, resume = snapshot(model), snapshot(resume)

    def write(epoch: int = progress.epoch, step: int = progress.step) -> CheckpointSaved:
        path = save_checkpoint(
            folder, epoch=epoch, step=step, model_state=model, resume_state=resume, meta={"metrics": metrics}
        )
        if is_best:
            set_link(folder, "best", path)
        set_link(folder, "last", path)
        prune(folder)
        return CheckpointSaved(str(path), is_best)

    yield from saver.write(write)


def restore(
    checkpoint: Checkpoint, learner: Learner, tally: Tally, *, consensus: Consensus, device: torch.device
) -> tuple[TrainProgress, int]:
    """Take up where a checkpoint stands; returns that, and how many processes saved it.

    Raises:
        RunError: It is of another network or optimiser than the recipe's.
    """
    state = checkpoint.load_resume()
    try:
        progress = TrainProgress(**{key: state[key] for key in asdict(TrainProgress())})
        learner.load_state_dict(checkpoint.model_state, state, epoch=progress.epoch, step=progress.step)
        _restore_ranks(state["ranks"], tally, consensus=consensus, device=device)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise RunError(
            f"{checkpoint.path} does not fit the recipe of its run: {str(error).strip().splitlines()[-1].strip()}",
            hint="was recipe.yaml edited? a changed recipe is a new run: --recipe",
        ) from error
    return progress, len(state["ranks"])


def _restore_ranks(ranks: list[dict[str, Any]], tally: Tally, *, consensus: Consensus, device: torch.device) -> None:
    """What each process had of its own; with another number of processes, the sums are shared out anew."""
    for own in ranks[consensus.rank :: consensus.world_size]:
        if own["tally"] is not None:
            tally.add_state(own["tally"])
    for other in ranks:  # more processes than then, and maybe no step to come in which they would meet
        if other["tally"] is not None:
            tally.begin_as(other["tally"])
    if len(ranks) == consensus.world_size:
        restore_generators(ranks[consensus.rank]["generators"], device)
