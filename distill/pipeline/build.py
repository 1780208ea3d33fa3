"""From a recipe to what is fitted: the network as its run begins with it, its data, its objective."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from distill.data.batches import Loader
from distill.data.splits import Splits
from distill.devices import keep_freed_memory
from distill.errors import RunError
from distill.events import Note
from distill.models import Normalize, build_model, build_normalize, without_weights
from distill.models.build import initial_seed
from distill.models.first_filters import fit_first_filters
from distill.models.trained import shipped_checkpoint
from distill.objectives import Objective
from distill.pipeline.context import Context
from distill.pipeline.source import OpenedTeacher
from distill.runs import open_run
from distill.runs.checkpoints import last_checkpoint
from distill.teaching.objective import ObjectiveWithTeacher
from distill.train.loop import Job

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["build_job", "build_network", "resumes"]


def build_network(context: Context, splits: Splits) -> nn.Module:
    """The network as its run begins with it; where a checkpoint is there to go on from, nothing is fetched.

    Raises:
        MissingError: Its pretrained weights cannot be had.
    """
    recipe = context.recipe
    spec = without_weights(recipe.model) if resumes(context) else recipe.model
    module = build_model(spec, num_classes=len(splits.dataset.classes), seed=initial_seed(recipe))
    if not resumes(context):
        fit_first_filters(module, splits.train, _normalize(context, splits))
    if context.options.init_from is not None and not resumes(context):
        _init_from(module, context)
    return module


def _normalize(context: Context, splits: Splits) -> Normalize:
    return build_normalize(context.recipe.model, mean=splits.dataset.mean, std=splits.dataset.std)


def resumes(context: Context) -> bool:
    """Whether there is a checkpoint to go on from; a resumed run without one starts over."""
    return context.resume is not None and last_checkpoint(context.resume / "checkpoints") is not None


def build_job(
    fabric: Fabric,
    context: Context,
    splits: Splits,
    source: OpenedTeacher | None,
    *,
    module: nn.Module,
    objective: Objective,
    path: Path,
    saves: bool,
) -> Job:
    """The network, its data and its objective, ready to fit."""
    keep_freed_memory(fabric.device)
    recipe = context.recipe
    return Job(
        run=str(path),
        recipe=recipe,
        module=module,
        normalize=_normalize(context, splits),
        objective=ObjectiveWithTeacher(objective, None if source is None else source.teacher),
        train=Loader(splits.train, device=fabric.device, fill=splits.fill),
        val=None if splits.val is None else Loader(splits.val, device=fabric.device, fill=splits.fill),
        checkpoints=path / "checkpoints" if saves else None,
        unlabelled=0 if splits.unlabelled is None else splits.unlabelled.count,
    )


def _init_from(module: nn.Module, context: Context) -> None:
    """Copy what agrees in name and shape, and say what did not."""
    assert context.options.init_from is not None
    run = open_run(context.options.init_from, runs_dir=context.options.runs_dir)
    state = shipped_checkpoint(run).model_state
    own = module.state_dict()
    fitting = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
    if not fitting:
        raise RunError(
            f"--init-from {run.path}: nothing in it fits {context.recipe.name}",
            hint="start from a run of the same network",
        )
    module.load_state_dict(fitting, strict=False)
    left = len(own) - len(fitting)
    context.options.tell(Note(f"{len(fitting)} of {len(own)} tensors start from {run.path}; {left} from scratch"))
