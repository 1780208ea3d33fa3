"""What a run's folder says of it: how it began, what it did, how it ended."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from distill.data.batches import steps_per_epoch
from distill.data.mixture import Mixture
from distill.data.splits import Splits
from distill.devices import describe_device, library_versions, threads
from distill.errors import DistillError, stop_error, was_stopped
from distill.evaluation.cost import spec_cost
from distill.events import CheckpointSaved, EpochDone, Event, Note, RunStarted, Tell
from distill.files import write_json
from distill.pipeline.context import Context
from distill.pipeline.failures import explain
from distill.pipeline.provenance import about_data, recipe_digests, refuse_changes
from distill.recipe import Recipe, dump_recipe
from distill.results.runs import RunResult
from distill.runs import RunFolder, create_run, git_state, utc_now
from distill.runs.checkpoints import best_checkpoint, read_meta
from distill.teaching.identity import write_identity
from distill.text import counted, percent
from distill.train.schedule import rates_by_step

__all__ = ["caution", "fallen", "finish", "read_result", "record", "recorded"]

_FALL = 0.1  # of validation top-1
_MAX_RATES = 200_000  # steps: about a second of work at the end of a run


@contextmanager
def recorded(
    context: Context,
    splits: Splits,
    *,
    teacher: dict[str, Any] | None,
    initial: str | None,
    made_from: Mapping[str, Any] | None = None,
) -> Iterator[RunFolder]:
    """Open the folder, hold it, and say in run.json how it ended, whatever happens.

    Args:
        teacher: What is known of the teacher.
        initial: sha256 of the weights that training begins with; None where it goes on from a checkpoint.
        made_from: Where the weights of a run that is not trained are from, as run.json keeps it.

    Raises:
        RunError: A run that would go on stands on something else than it began with; it is left as it is.
    """
    parent = context.options.into or context.options.runs_dir / context.recipe.name
    run = RunFolder(context.resume) if context.resume else create_run(parent.parent, parent.name)
    with run.lock():
        if context.resume:
            refuse_changes(run, data=about_data(splits), teacher=teacher, initial=initial)
        _write_start(run, context, splits, initial, made_from or {})
        try:
            yield run
        except BaseException as error:
            _write_end(run, error)
            raise


def _write_start(
    run: RunFolder, context: Context, splits: Splits, initial: str | None, made_from: Mapping[str, Any]
) -> None:
    recipe, options = context.recipe, context.options
    if context.resume and initial is not None:
        options.tell(Note(f"{run.path} has no checkpoint: it starts over"))
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
        git=git_state(Path.cwd()),
        **({} if context.resume else _begun(context)),
        **(_resumed(run, options.tell) if initial is None else _from_the_start(run, context, initial)),
        **made_from,
        finished=None,
        exit_code=None,
        error=None,
        data=about_data(splits),
        params=context.params,
        init_from=options.init_from,
    )
    if not context.resume:
        run.write_recipe(recipe)  # last: a folder with a recipe knows its threads and what it starts from


def _begun(context: Context) -> dict[str, Any]:
    """What a run keeps for good."""
    return {
        "started": utc_now(),
        "choices": context.choices,
        "recipe_sha256": recipe_digests(dump_recipe(context.recipe)),
    }


def _from_the_start(run: RunFolder, context: Context, initial: str) -> dict[str, Any]:
    """What a run has whose first step is still to come; also one that starts over."""
    again = {"resumed_threads": None} if context.resume and "resumed_threads" in run.info.extra else {}
    return {"threads": threads(), "initial_sha256": initial} | again


def _resumed(run: RunFolder, tell: Tell) -> dict[str, Any]:
    """What a run that goes on has otherwise than when it began."""
    before, now = run.info.threads, threads()
    if before in (None, now):
        return {}
    tell(Note(f"this run had {counted(before, 'thread')} and goes on with {now}: the last bits will differ", "warning"))
    return {"resumed_threads": now}


def _write_end(run: RunFolder, error: BaseException) -> None:
    explanation = stop_error(error) if isinstance(error, KeyboardInterrupt) else explain(error)
    status = "interrupted" if was_stopped(error) else "failed"
    code = explanation.exit_code if explanation else 1
    message = explanation.message if explanation else f"{type(error).__name__}: {error}"
    run.log(f"ended: {message}")
    with suppress(DistillError):  # the disk that failed the run fails its last words too; the error is on its way
        run.write_info(status=status, finished=utc_now(), exit_code=code, error=message)


def caution(run: RunFolder, lines: Sequence[str], tell: Tell) -> None:
    """Tell what flatters a run, and keep it in its folder."""
    for line in lines:
        tell(Note(line, "warning"))
        run.log(f"warning: {line}")
    if lines:
        run.write_info(cautions=list(lines))


def record(run: RunFolder, event: Event) -> None:
    """Write down what the loop tells."""
    match event:
        case RunStarted(epoch=epoch, epochs=epochs):
            run.log(f"training epochs {epoch + 1} to {epochs} on {event.device}: {event.train_images} images")
        case EpochDone(epoch=epoch, metrics=metrics):
            run.append_metrics(metrics)
            compiling = {"compile_s": event.compile_s} if event.compile_s else {}
            run.append_timing(
                {"epoch": epoch, "seconds": event.seconds, "images_per_s": event.images_per_s} | compiling
            )
            numbers = ", ".join(f"{key} {value:.4g}" for key, value in metrics.items() if key != "epoch")
            run.log(f"epoch {epoch}: {numbers}; {event.seconds:.1f} s" + (" (best)" if event.is_best else ""))
        case Note(message=message, level=level):
            run.log(f"{level}: {message}")
        case CheckpointSaved(path=path):
            run.log(f"saved {path}")


def finish(run: RunFolder, context: Context) -> None:
    """Write the result and the plots, and say that the run is finished."""
    recipe = context.recipe
    metrics, timing = run.metrics(), run.timing()
    best = read_meta(best_checkpoint(run.checkpoints))
    entry = metrics[best["epoch"] - 1]
    seconds = sum(line.get("seconds") or 0.0 for line in timing)
    images = sum((line.get("seconds") or 0.0) * (line.get("images_per_s") or 0.0) for line in timing)
    compile_s = sum(line.get("compile_s") or 0.0 for line in timing)
    run.write_result(
        {
            "epochs": len(metrics),
            "best_epoch": best["epoch"],
            "val_top1": entry.get("val_top1"),
            "val_loss": entry.get("val_loss"),
        }
        | spec_cost(recipe.model, len(run.classes)).figures.to_json()
        | {"seconds": seconds, "images_per_s": images / seconds if seconds else 0.0}
        | ({"compile_s": compile_s} if compile_s else {})
    )
    _write_rates(run, recipe, metrics)
    from distill.report.redraw import redraw  # matplotlib is asked for at the end of a run alone

    redraw(run)
    write_identity(run)
    run.write_info(status="finished", finished=utc_now(), exit_code=0)
    run.point_latest()
    if (line := fallen(metrics, best=best["epoch"], images=(run.info.data or {}).get("val") or 0)) is not None:
        run.log(f"warning: {line}")
        context.options.tell(Note(line, "warning"))


def fallen(metrics: Sequence[Mapping[str, Any]], *, best: int, images: int) -> str | None:
    """What to say of a run that ends far below its best epoch, more than so few validation images explain.

    Args:
        best: The epoch that was kept, from 1 on.
        images: So many validated it.
    """
    top, last = (line.get("val_top1") for line in (metrics[best - 1], metrics[-1]))
    if top is None or last is None or images < 1:
        return None
    if top - last <= max(_FALL, 2 * math.sqrt((top * (1 - top) + last * (1 - last)) / images)):
        return None
    return (
        f"training did not settle: epoch {best} of {len(metrics)}, which is kept, answers {percent(top)} % of the "
        f"validation images right, the last one {percent(last)} %; a lower optim.lr or schedule.warmup_epochs may help"
    )


def _write_rates(run: RunFolder, recipe: Recipe, metrics: list[dict[str, Any]]) -> None:
    """The learning rate by step, for the plot; metrics.jsonl has one an epoch."""
    info, batch_size = run.info, recipe.train.batch_size
    assert info.data is not None, "written when the run began"
    mixture = Mixture.of(recipe, labelled=info.data["train"], unlabelled=info.data.get("unlabelled", 0))
    steps = steps_per_epoch(mixture.images, batch_size, info.extra["devices"])
    if steps * len(metrics) > _MAX_RATES:
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
        role=run.read_info().role,
    )
