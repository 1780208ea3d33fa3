"""The training loop. It never asks whether there is a teacher: that is the objective's affair."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from distill.data.batches import Batch, Loader, steps_per_epoch
from distill.data.plan import epoch_order, epoch_view
from distill.errors import RunError, UsageError
from distill.models import Normalize, head_parameters, stages
from distill.objectives import LossParts
from distill.recipe import Recipe
from distill.train.agreement import Agreement
from distill.train.checkpoint import Checkpoint, prune, save_checkpoint, set_link
from distill.train.ema import build_ema
from distill.train.events import CheckpointSaved, EpochDone, Event, Note, RunStarted, StepDone
from distill.train.optim import build_optimizer
from distill.train.pieces import split_batch
from distill.train.schedule import build_schedule
from distill.train.seeds import restore_generators, seed_generators, snapshot_generators
from distill.train.signals import StopRequest
from distill.train.tally import Tally
from distill.train.validate import validate

__all__ = ["Job", "Objective", "fit"]

Objective = Callable[[Tensor, Batch], LossParts]
_STEPS_BETWEEN_CHECKS = 100  # reading whether the loss is finite waits for the device
_CUDA_GRAPHS = ("reduce-overhead", "max-autotune")  # modes in which a step's outputs lie where the next one's will
_RECOMPILES = 64  # a sweep compiles many networks of one class; at 8, torch's default, the rest would run uncompiled


@dataclass(frozen=True)
class Job:
    """What a fit works with.

    Attributes:
        checkpoints: The run's ``checkpoints/``; None where nothing is saved (every rank but the first).
        val: The validation images; None trains on everything and keeps the last epoch.
    """

    run: str
    recipe: Recipe
    module: nn.Module
    normalize: Normalize
    objective: Objective
    train: Loader
    val: Loader | None
    checkpoints: Path | None


def fit(
    job: Job, fabric: Fabric, *, resume: Checkpoint | None = None, stop: StopRequest | None = None
) -> Iterator[Event]:
    """Train ``job.module`` in place, telling what happens; on the CPU, resuming repeats every byte.

    The consumer of the events writes metrics: an :class:`EpochDone` is handed over before its checkpoint is saved, so
    that a checkpoint never knows of an epoch the metrics lack.

    Raises:
        RunError: The loss is not finite, or a checkpoint cannot be written.
        InterruptedRunError, TerminatedRunError: ``stop`` was set; the state is saved.
    """
    stop = StopRequest() if stop is None else stop  # one that is not set yet is false
    return _Fit(job, fabric, stop).events(resume)


class _Fit:
    def __init__(self, job: Job, fabric: Fabric, stop: StopRequest) -> None:
        self.job, self.fabric, self.stop = job, fabric, stop
        self.recipe = job.recipe
        self.train = job.recipe.train
        self.device = fabric.device
        self.count = len(job.train)
        self.steps = steps_per_epoch(self.count, self.train.batch_size, fabric.world_size)
        if self.steps == 0:
            raise UsageError(
                f"{self.count} training image(s) are too few: a step takes two for each device",
                hint="see data.limit and data.val_fraction; or fewer --devices",
            )
        self.epoch = self.step = self.waited = 0
        self.best: float | None = None  # of train.monitor, larger is better
        self.waited_from: float | None = None  # what early stopping wants to see exceeded
        self.agreement = Agreement(fabric)
        self.saved_at = time.monotonic()
        self.compiles = self.train.compile is not False
        self._build()

    def _build(self) -> None:
        module = self.job.module.to(self.device)
        if self.train.sync_batchnorm and self.fabric.world_size > 1:
            module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        if self.train.channels_last is True:
            module = module.to(memory_format=torch.channels_last)
        self.raw = module
        self.head = head_parameters(module)
        optimizer = build_optimizer(
            module,
            self.recipe.optim,
            head=self.head,
            stages=stages(module),
            device=self.device,
            fused=not (self.train.precision == "fp16" and self._clips()),
        )
        self.ema = build_ema(module, self.train.ema)
        if self.train.compile is not False:
            torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _RECOMPILES)
            module.compile(mode=self.train.compile, dynamic=False)
        self.model, self.optimizer = self.fabric.setup(module, optimizer)
        self.schedule = build_schedule(
            self.recipe.schedule, self.optimizer.optimizer, epochs=self.train.epochs, steps_per_epoch=self.steps
        )
        self.tally = Tally(self.device)
        self.ranks_before = self.agreement.world
        seed_generators(self.train.seed, rank=self.fabric.global_rank)

    # The run

    def events(self, resume: Checkpoint | None) -> Iterator[Event]:
        if resume is not None:
            self._restore(resume)
        yield self._started()
        yield from self._notes()
        while self.epoch < self.train.epochs and not self._stopped_early():
            yield from self._epoch()

    def _started(self) -> RunStarted:
        return RunStarted(
            run=self.job.run,
            name=self.recipe.name,
            device=str(self.device),
            epochs=self.train.epochs,
            steps_per_epoch=self.steps,
            batch_size=self.train.batch_size,
            train_images=self.count,
            val_images=0 if self.job.val is None else len(self.job.val),
            params=sum(parameter.numel() for parameter in self.raw.parameters()),
            epoch=self.epoch,
        )

    def _notes(self) -> Iterator[Event]:
        asked = getattr(self.recipe.schedule, "warmup_epochs", 0)
        if asked > self.train.epochs:
            yield Note(
                f"schedule.warmup_epochs {asked:g} is longer than the run: shortened to {self.train.epochs}", "warning"
            )
        dropped = self.count - min(self.count, self.steps * self.train.batch_size)
        if dropped:
            yield Note(
                f"the last {dropped} image(s) of each epoch are left out: too few for batch norm on every device"
            )

        if self.ranks_before != self.agreement.world:
            yield Note(
                f"this run had {self.ranks_before} device(s) and goes on with {self.agreement.world}: "
                "the last bits, and what dropout draws, will differ",
                "warning",
            )

    def _stopped_early(self) -> bool:
        stopping = self.train.early_stopping
        return stopping is not None and self.waited >= stopping.patience

    # One epoch

    def _epoch(self) -> Iterator[Event]:
        started, first = time.monotonic(), self.step
        if first == 0:
            self.tally = Tally(self.device)
        self._set_mode()
        for batch in self._batches():
            self._step(batch)
            self.step += 1
            yield StepDone(self.epoch, self.step, min(self.step * self.train.batch_size, self.count))
            if self.compiles:  # once, and its time is no step's
                yield Note(f"compiling took {time.monotonic() - started:.1f} s, the first step included")
                started, first, self.compiles = time.monotonic(), self.step, False
            yield from self._between_steps()
        self._check_finite()
        self.tally.reduce(self.fabric.all_reduce)
        self.agreement.share([*self.raw.buffers(), *(() if self.ema is None else self.ema.module.buffers())])
        train_metrics = self.tally.metrics()
        seconds = time.monotonic() - started
        images = max(self.count - first * self.train.batch_size, 0)
        metrics = {"epoch": self.epoch + 1, "lr": self.schedule.last_lr} | train_metrics | self._validate()
        self.schedule.epoch_done(metrics)
        self.epoch, self.step = self.epoch + 1, 0
        is_best = self._judge(metrics)
        yield EpochDone(self.epoch, metrics, seconds, images / seconds, is_best)
        stopping, _ = self.agreement.ask(self.stop, now=True)
        stopping = stopping and not self._is_over()
        better = is_best and self.job.val is not None  # without validation every epoch is the best so far
        if better or self.epoch % self.train.checkpoint_epochs == 0 or self._is_over() or stopping:
            yield self._save(metrics, is_best=is_best)
        if stopping:
            raise self._stopped()

    def _batches(self) -> Iterator[Batch]:
        view, rows = epoch_view(
            self.recipe.augment,
            n=self.count,
            image_size=self.recipe.data.image_size,
            epoch=self.epoch,
            train_seed=self.train.seed,
            epochs=self.train.epochs,
        )
        return self.job.train.augmented(
            order=epoch_order(self.train.seed, self.epoch, self.count),
            view=view,
            rows=rows,
            batch_size=self.train.batch_size,
            start_step=self.step,
            shard=(self.fabric.global_rank, self.fabric.world_size),
            channels_last=self.train.channels_last is True,
        )

    def _set_mode(self) -> None:
        """Train mode; while the backbone is frozen, its batch norm keeps its statistics too."""
        frozen = self.epoch < self.train.freeze_backbone_epochs
        self.model.train()
        for name, parameter in self.raw.named_parameters():
            parameter.requires_grad_(not frozen or name in self.head)
        if frozen:
            for name, module in self.raw.named_modules():
                own = {f"{name}.{key}" for key, _ in module.named_parameters(recurse=False)}
                if isinstance(module, nn.modules.batchnorm._BatchNorm) and not own & self.head:
                    module.eval()

    def _step(self, batch: Batch) -> None:
        whole = min(self.train.batch_size, self.count - self.step * self.train.batch_size)
        share = batch.size * self.fabric.world_size / whole  # ranks may differ by one image
        pieces = split_batch(batch, self.train.accumulate)
        if self.train.compile in _CUDA_GRAPHS and self.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()
        for number, piece in enumerate(pieces):
            last = number == len(pieces) - 1
            with self.fabric.no_backward_sync(self.model, enabled=not last):
                logits = self.model(self.job.normalize(piece.images))
                result = self.job.objective(logits, piece)
                self.tally.add(result, logits, piece.labels, step=self.step)
                self.fabric.backward(result.loss * (share * piece.size / batch.size))
        self._clip()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step_done()
        if self.ema is not None:
            self.ema.update_parameters(self.raw)

    def _clips(self) -> bool:
        return self.train.clip_norm is not None or self.train.clip_value is not None

    def _clip(self) -> None:
        if self.train.clip_value is not None:
            self.fabric.clip_gradients(self.model, self.optimizer, clip_val=self.train.clip_value)
            if self.train.clip_norm is not None:  # not Fabric's again: a gradient scaler undoes its scale but once
                torch.nn.utils.clip_grad_norm_(self.raw.parameters(), self.train.clip_norm)
        elif self.train.clip_norm is not None:
            self.fabric.clip_gradients(
                self.model, self.optimizer, max_norm=self.train.clip_norm, error_if_nonfinite=False
            )

    def _between_steps(self) -> Iterator[Event]:
        if self.step == self.steps:
            return  # the epoch's own check and checkpoint follow
        if self.step % _STEPS_BETWEEN_CHECKS == 0:
            self._check_finite()
        minutes = self.train.checkpoint_minutes
        is_due = minutes is not None and time.monotonic() - self.saved_at >= minutes * 60
        stopping, is_due = self.agreement.ask(self.stop, save=is_due)
        if is_due or stopping:
            self._check_finite()
            yield self._save({}, is_best=False)
        if stopping:
            raise self._stopped()

    def _check_finite(self) -> None:
        self.tally.check_finite(epoch=self.epoch, lr=self.schedule.last_lr, gather=self.agreement.gather)

    # What an epoch was worth

    def _validate(self) -> dict[str, float]:
        if self.job.val is None:
            return {}
        metrics = None
        if self.fabric.is_global_zero:  # batch-norm statistics are each rank's own: the first rank's are what is saved
            precision = self.fabric.strategy.precision.forward_context
            metrics = validate(self._shipped(), self.job.normalize, self.job.val, self.train.batch_size, precision)
        return self.fabric.broadcast(metrics)

    def _judge(self, metrics: dict[str, float]) -> bool:
        """Whether this epoch is the best so far; without validation the last one is."""
        if self.job.val is None:
            return True
        value = metrics[self.train.monitor] * (1 if self.train.monitor == "val_top1" else -1)
        margin = self.train.early_stopping.min_delta if self.train.early_stopping else 0.0
        if self.waited_from is None or value > self.waited_from + margin:
            self.waited_from, self.waited = value, 0
        else:
            self.waited += 1
        is_best = self.best is None or value > self.best  # however little: the margin is for patience alone
        self.best = value if is_best else self.best
        return is_best

    def _is_over(self) -> bool:
        return self.epoch >= self.train.epochs or self._stopped_early()

    def _shipped(self) -> nn.Module:
        return self.raw if self.ema is None else self.ema.module

    # Saving and going on

    def _stopped(self) -> Exception:
        self.agreement.wait()  # whoever started the processes may end them all once one has ended
        command = "teacher-finetune" if self.recipe.role == "teacher" else "student"
        return self.stop.error(self.job.run, hint=f"go on with it: distill {command} --resume {self.job.run}")

    def _save(self, metrics: dict[str, float], *, is_best: bool) -> CheckpointSaved:
        self.saved_at = time.monotonic()
        folder = self.job.checkpoints
        own = {"tally": self.tally.state_dict() if self.step else None, "generators": snapshot_generators(self.device)}
        ranks = self.agreement.gather(own)
        if folder is None:
            return CheckpointSaved("", is_best)
        path = save_checkpoint(
            folder,
            epoch=self.epoch,
            step=self.step,
            model_state=self._shipped().state_dict(),
            resume_state=self._state() | {"ranks": ranks},
            meta={"metrics": metrics},
        )
        if is_best:
            set_link(folder, "best", path)
        set_link(folder, "last", path)
        prune(folder)
        return CheckpointSaved(str(path), is_best)

    def _state(self) -> dict[str, Any]:
        scaler = self.fabric.strategy.precision.state_dict()
        return {
            "epoch": self.epoch,
            "step": self.step,
            "best": self.best,
            "waited_from": self.waited_from,
            "waited": self.waited,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "raw": None if self.ema is None else self.raw.state_dict(),
            "ema_updates": None if self.ema is None else int(self.ema.n_averaged),
            "scaler": scaler or None,
        }

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Take up where a checkpoint stands.

        Raises:
            RunError: It is of another network or optimiser than the recipe's.
        """
        state = checkpoint.load_resume()
        try:
            self._take_up(checkpoint, state)
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise RunError(
                f"{checkpoint.path} does not fit the recipe of its run: {str(error).strip().splitlines()[-1].strip()}",
                hint="was recipe.yaml edited? a changed recipe is a new run: --recipe",
            ) from error

    def _take_up(self, checkpoint: Checkpoint, state: dict[str, Any]) -> None:
        self._shipped().load_state_dict(checkpoint.model_state)
        if self.ema is not None:
            self.raw.load_state_dict(state["raw"])
            self.ema.n_averaged.fill_(state["ema_updates"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if state["scaler"]:
            self.fabric.strategy.precision.load_state_dict(state["scaler"])
        self.epoch, self.step = state["epoch"], state["step"]
        self.best, self.waited, self.waited_from = state["best"], state["waited"], state["waited_from"]
        self._restore_ranks(state["ranks"])

    def _restore_ranks(self, ranks: list[dict[str, Any]]) -> None:
        """What each process had of its own; with another number of processes, the sums are shared out anew."""
        rank, world = self.agreement.rank, self.agreement.world
        for own in ranks[rank::world]:
            if own["tally"] is not None:
                self.tally.add_state(own["tally"])
        if len(ranks) == world:
            restore_generators(ranks[rank]["generators"], self.device)
        self.ranks_before = len(ranks)
