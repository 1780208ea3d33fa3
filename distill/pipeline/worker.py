"""What every process of a run does: load, build, fit, and (the first one) write the folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from torch import nn

from distill.data.batches import Loader, steps_per_epoch
from distill.data.splits import Splits, load_splits
from distill.devices import describe_device, keep_freed_memory, library_versions, threads
from distill.errors import DistillError, InterruptedRunError, RunError, TerminatedRunError
from distill.evaluate.cost import spec_cost
from distill.files import write_json
from distill.fingerprint import state_sha256
from distill.models import build_model, build_normalize, without_weights
from distill.objectives import build_loss
from distill.pipeline.context import Context, tell_progress
from distill.pipeline.failures import explain, on_this_machine
from distill.pipeline.source import Source, choose_logits, open_source
from distill.recipe import Recipe
from distill.report.redraw import redraw
from distill.runs import RunFolder, create_run, git_state, open_run, utc_now
from distill.teaching.objective import Supervised, Taught
from distill.teaching.team import Together
from distill.train.checkpoint import best_checkpoint, last_checkpoint, load_checkpoint, read_meta
from distill.train.events import CheckpointSaved, EpochDone, Event, Note, RunStarted
from distill.train.loop import Job, fit
from distill.train.schedule import rates_by_step
from distill.train.seeds import derive_seed
from distill.train.signals import watch_signals
from distill.train.trained import shipped_checkpoint

__all__ = ["RunResult", "build_job", "build_network", "read_result", "train_worker"]

_MOST_RATES = 200_000  # steps: about a second of work at the end of a run


@dataclass(frozen=True)
class RunResult:
    """What a training command reports.

    Attributes:
        run: The run folder.
        val_top1: Of the best epoch, a fraction; None where nothing was validated.
        seconds: Of training, over all its epochs.
        images_per_s: Training images over those seconds.
    """

    run: Path
    status: str
    epochs: int
    val_top1: float | None
    seconds: float
    images_per_s: float


def train_worker(fabric: Fabric, context: Context) -> RunResult:
    """Carry out a run in this process and return its result."""
    with on_this_machine(fabric.device, context):
        return _train(fabric, context)


def _train(fabric: Fabric, context: Context) -> RunResult:
    splits = context.splits or load_splits(context.recipe.data, tell_progress(context.options))
    recipe, choices = _chosen(fabric, context, splits)
    options = replace(context.options, devices=fabric.world_size)  # what torchrun started is not in the options
    context = replace(context, recipe=recipe, choices=context.choices | choices, options=options)
    module = build_network(context, splits)  # before a folder exists: weights may be missing
    with ExitStack() as stack:
        run = None
        if fabric.is_global_zero:
            run = stack.enter_context(_recorded(context, splits))
        path = Path(fabric.broadcast(str(run.path) if run else None))
        source = _source(fabric, context, splits)
        if run is not None and source is not None:
            run.write_info(teacher=source.about)
        if run is not None and context.resume is None:
            run.write_info(initial_sha256=state_sha256(module.state_dict()))
        _fit(fabric, context, splits, source, module=module, run=run, path=path)
        if run is not None:
            _finish(run, context)
    return fabric.broadcast(read_result(run) if run is not None else None)  # other machines may not see the folder


def _chosen(fabric: Fabric, context: Context, splits: Splits) -> tuple[Recipe, dict[str, Any]]:
    found = None
    if fabric.is_global_zero:
        found = choose_logits(context.recipe, splits, runs_dir=context.options.runs_dir, device=fabric.device)
    return fabric.broadcast(found)


def _source(fabric: Fabric, context: Context, splits: Splits) -> Source | None:
    """The teacher of this run; a missing bank is built first, by all processes together."""
    if context.recipe.teacher is None:
        return None
    return open_source(
        context.recipe,
        splits,
        runs_dir=context.options.runs_dir,
        device=fabric.device,
        tell=context.options.tell if fabric.is_global_zero else _silent,
        team=Together(fabric),
    )


def _silent(_event: Event) -> None:
    pass


# The run's folder


@contextmanager
def _recorded(context: Context, splits: Splits) -> Iterator[RunFolder]:
    """Open the folder, hold it, and say in run.json how it ended, whatever happens."""
    run = RunFolder(context.resume) if context.resume else create_run(context.options.runs_dir, context.recipe.name)
    with run.lock():
        _write_start(run, context, splits)
        try:
            yield run
        except BaseException as error:
            _write_end(run, error)
            raise


def _write_start(run: RunFolder, context: Context, splits: Splits) -> None:
    data = {
        "fingerprint": splits.fingerprint,
        "classes": list(splits.dataset.classes),
        "train": len(splits.train),
        "val": 0 if splits.val is None else len(splits.val),
        "skipped": splits.dataset.skipped,
    }
    if context.resume:
        before = run.info.data or {}
        if before.get("fingerprint") not in (None, splits.fingerprint):
            raise RunError(
                f"{run.path}: the data changed since this run began",
                hint=f"restore {context.recipe.data.root}, or start a new run",
            )
    recipe, options = context.recipe, context.options
    run.write_info(
        status="running",
        command=list(options.command),
        role=recipe.role,
        name=recipe.name,
        seeds={"train": recipe.train.seed, "split": recipe.data.split_seed, "view": recipe.augment.view_seed},
        versions=library_versions(),
        device=describe_device(context.device),
        device_type=context.device.type,
        devices=options.devices,
        threads=threads(),
        git=git_state(Path.cwd()),
        **({} if context.resume else {"started": utc_now(), "choices": context.choices}),
        finished=None,
        exit_code=None,
        error=None,
        data=data,
        params=context.params,
        init_from=options.init_from,
    )
    if not context.resume:
        run.write_recipe(recipe)  # last: a folder with a recipe knows its threads and what it starts from


def _write_end(run: RunFolder, error: BaseException) -> None:
    stopped = isinstance(error, KeyboardInterrupt | InterruptedRunError | TerminatedRunError)
    told = explain(error)
    code = told.exit_code if told else 130 if stopped else 1
    message = told.message if told else f"{type(error).__name__}: {error}"
    run.log(f"ended: {message}")
    with suppress(DistillError):  # the disk that failed the run fails its last words too; the error is on its way
        run.write_info(status="interrupted" if stopped else "failed", finished=utc_now(), exit_code=code, error=message)


# Fitting


def _fit(
    fabric: Fabric,
    context: Context,
    splits: Splits,
    source: Source | None,
    *,
    module: nn.Module,
    run: RunFolder | None,
    path: Path,
) -> None:
    last = last_checkpoint(path / "checkpoints") if run is not None and context.resume else None
    last = fabric.broadcast(last)
    resume = None if last is None else load_checkpoint(last)
    if run is not None and context.resume:
        kept = resume.epoch if resume else 0
        run.truncate_metrics(kept)
        run.truncate_timing(kept)
    job = build_job(fabric, context, splits, source, module=module, path=path, saves=run is not None)
    with watch_signals() as stop:
        for event in fit(job, fabric, resume=resume, stop=stop):
            if run is not None:
                _record(run, event)
                context.options.tell(event)
    if source is not None:
        source.check_unchanged()


def build_network(context: Context, splits: Splits) -> nn.Module:
    """The network as its run begins with it; where a checkpoint is there to go on from, nothing is fetched.

    Raises:
        MissingError: Its pretrained weights cannot be had.
    """
    recipe = context.recipe
    goes_on = context.resume is not None and last_checkpoint(context.resume / "checkpoints") is not None
    spec = without_weights(recipe.model) if goes_on else recipe.model
    module = build_model(spec, num_classes=len(splits.dataset.classes), seed=derive_seed(recipe.train.seed, "init"))
    if context.options.init_from is not None and not goes_on:
        _init_from(module, context)
    return module


def build_job(
    fabric: Fabric,
    context: Context,
    splits: Splits,
    source: Source | None,
    *,
    module: nn.Module,
    path: Path,
    saves: bool,
) -> Job:
    """The network, its data and its objective, ready to fit."""
    keep_freed_memory(fabric.device)
    recipe = context.recipe
    loss = build_loss(recipe.objective, label_smoothing=recipe.train.label_smoothing)
    return Job(
        run=str(path),
        recipe=recipe,
        module=module,
        normalize=build_normalize(recipe.model, mean=splits.dataset.mean, std=splits.dataset.std),
        objective=Supervised(loss) if source is None else Taught(loss, source.teacher),
        train=Loader(splits.train, device=fabric.device, fill=splits.fill),
        val=None if splits.val is None else Loader(splits.val, device=fabric.device, fill=splits.fill),
        checkpoints=path / "checkpoints" if saves else None,
    )


def _init_from(module: nn.Module, context: Context) -> None:
    """Copy what agrees in name and shape, and say what did not."""
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


def _record(run: RunFolder, event: Event) -> None:
    match event:
        case RunStarted(epoch=epoch, epochs=epochs):
            run.log(f"training epochs {epoch + 1} to {epochs} on {event.device}: {event.train_images} images")
        case EpochDone(epoch=epoch, metrics=metrics):
            run.append_metrics(metrics)
            run.append_timing({"epoch": epoch, "seconds": event.seconds, "images_per_s": event.images_per_s})
            numbers = ", ".join(f"{key} {value:.4g}" for key, value in metrics.items() if key != "epoch")
            run.log(f"epoch {epoch}: {numbers}; {event.seconds:.1f} s" + (" (best)" if event.is_best else ""))
        case Note(message=message, level=level):
            run.log(f"{level}: {message}")
        case CheckpointSaved(path=path):
            run.log(f"saved {path}")


# The end


def _finish(run: RunFolder, context: Context) -> None:
    recipe = context.recipe
    metrics, timing = run.metrics(), run.timing()
    best = read_meta(best_checkpoint(run.checkpoints))
    entry = metrics[best["epoch"] - 1]
    classes = len(run.classes)
    cost = spec_cost(recipe.model, classes)
    seconds = sum(line.get("seconds") or 0.0 for line in timing)
    images = sum((line.get("seconds") or 0.0) * (line.get("images_per_s") or 0.0) for line in timing)
    run.write_result(
        {
            "epochs": len(metrics),
            "best_epoch": best["epoch"],
            "val_top1": entry.get("val_top1"),
            "val_loss": entry.get("val_loss"),
            "params": cost.params,
            "gmacs": cost.macs / 1e9,
            "size_mb": cost.size_mb,
            "seconds": seconds,
            "images_per_s": images / seconds if seconds else 0.0,
        }
    )
    _write_rates(run, recipe, metrics)
    redraw(run)
    run.write_info(status="finished", finished=utc_now(), exit_code=0)
    run.point_latest()


def _write_rates(run: RunFolder, recipe: Recipe, metrics: list[dict[str, Any]]) -> None:
    """The learning rate by step, for the plot; metrics.jsonl has one an epoch."""
    info = run.info
    steps = steps_per_epoch(info.data["train"], recipe.train.batch_size, info.extra["devices"])
    if steps * len(metrics) > _MOST_RATES:
        return
    rates = rates_by_step(
        recipe.schedule, lr=recipe.optim.lr, steps_per_epoch=steps, epochs=recipe.train.epochs, metrics=metrics
    )
    write_json(run.path / "rates.json", {"steps_per_epoch": steps, "lr": rates})


def read_result(run: RunFolder) -> RunResult:
    """A finished run's result, from its folder."""
    result = run.result("epochs", "val_top1", "seconds", "images_per_s")
    return RunResult(
        run=run.path,
        status=run.status,
        epochs=result["epochs"],
        val_top1=result["val_top1"],
        seconds=result["seconds"],
        images_per_s=result["images_per_s"],
    )
