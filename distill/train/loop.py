"""The training loop. It never asks whether there is a teacher: that is the objective's affair."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from distill.code import needs_allow_code
from distill.commands import resume_command
from distill.data.batches import Epoch, Loader, micro_batch_count, steps_per_epoch
from distill.data.mixture import Mixture
from distill.data.views import epoch_view
from distill.devices import CompileClock, compile_clock
from distill.errors import DivergedError, UsageError
from distill.evaluation.by_class import balanced_accuracy, macro_f1
from distill.events import CheckpointSaved, EpochDone, Event, Note, RunStarted, StepDone
from distill.models import Normalize
from distill.recipe import Recipe
from distill.recipe.base import worth
from distill.runs.checkpoints import Checkpoint
from distill.team.consensus import Consensus
from distill.team.shares import Distributed
from distill.team.stop import StopRequest
from distill.text import counted
from distill.train.cautions import cautions
from distill.train.epoch_sums import Tally, divergence_hint
from distill.train.saver import Saver, saving, writes_behind
from distill.train.seeds import seed_generators
from distill.train.state import TrainProgress, restore, save
from distill.train.step import Learner, TrainingObjective

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Job", "fit"]

_STEPS_BETWEEN_CHECKS = 100  # reading whether the loss is finite waits for the device


@dataclass(frozen=True)
class Job:
    """What a fit works with.

    Attributes:
        checkpoints: The run's ``checkpoints/``; None where nothing is saved (every rank but the first).
        val: The validation images; None trains on everything and keeps the last epoch.
        unlabelled: How many of the training images have no label; they are the last ones.
    """

    run: str
    recipe: Recipe
    module: nn.Module
    normalize: Normalize
    objective: TrainingObjective
    train: Loader
    val: Loader | None
    checkpoints: Path | None
    unlabelled: int = 0


def fit(
    job: Job, fabric: Fabric, *, resume: Checkpoint | None = None, stop: StopRequest | None = None
) -> Generator[Event]:
    """Train ``job.module`` in place, telling what happens; on the CPU, resuming repeats every byte.

    The consumer of the events writes metrics: an :class:`EpochDone` is handed over before its checkpoint is saved, so
    that a checkpoint never knows of an epoch the metrics lack. On a GPU a checkpoint is written while the next epoch
    runs: a :class:`CheckpointSaved` says when it is whole. Whoever stops listening closes the events, which waits for
    that.

    Raises:
        RunError: The loss is not finite, or a checkpoint cannot be written.
        InterruptedRunError, TerminatedRunError: ``stop`` was set; the state is saved.
    """
    stop = StopRequest() if stop is None else stop  # one that is not set yet is false
    return _Fit(job, fabric, stop).events(resume)


class _Fit:
    def __init__(self, job: Job, fabric: Fabric, stop: StopRequest) -> None:
        self.job, self.fabric, self.stop = job, fabric, stop
        self.recipe, self.train = job.recipe, job.recipe.train
        self.team = Distributed(fabric)
        labelled = len(job.train) - job.unlabelled
        self.mixture = Mixture.of(job.recipe, labelled=labelled, unlabelled=job.unlabelled)
        self.count = self.mixture.images
        self.steps = steps_per_epoch(self.count, self.train.batch_size, self.team.world_size)
        if self.steps == 0:
            raise UsageError(
                f"{counted(self.count, 'training image')}: too few, as a step takes two for each device",
                hint="see data.limit and data.val_fraction; or fewer --devices",
            )
        self.at = TrainProgress()
        self.consensus = Consensus(self.team)
        self.saved_at = time.monotonic()
        self.clock = CompileClock()
        self.saver = Saver(behind=writes_behind(fabric.device))
        self.learner = Learner(
            job.recipe,
            job.module,
            normalize=job.normalize,
            objective=job.objective,
            fabric=fabric,
            steps_per_epoch=self.steps,
        )
        self.tally = Tally(fabric.device)
        self.ranks_before = self.team.world_size
        seed_generators(self.train.seed, fabric.device, rank=self.team.rank)

    # The run

    def events(self, resume: Checkpoint | None) -> Generator[Event]:
        if resume is not None:
            self.at, self.ranks_before = restore(
                resume, self.learner, self.tally, consensus=self.consensus, device=self.fabric.device
            )
        yield self._started()
        yield from self._notes()
        with compile_clock(self.train.compile is not False) as self.clock, saving(self.saver):
            while not self._is_over():
                yield from self._epoch()

    def _started(self) -> RunStarted:
        return RunStarted(
            run=self.job.run,
            name=self.recipe.name,
            device=str(self.fabric.device),
            epochs=self.train.epochs,
            steps_per_epoch=self.steps,
            batch_size=self.train.batch_size,
            train_images=len(self.job.train),
            val_images=0 if self.job.val is None else len(self.job.val),
            params=sum(parameter.numel() for parameter in self.learner.raw.parameters()),
            epoch=self.at.epoch,
        )

    def _notes(self) -> Iterator[Event]:
        accumulate = self.train.accumulate
        whole, world_size = min(self.train.batch_size, self.count), self.team.world_size
        if accumulate > (micro_batches := micro_batch_count(accumulate, whole=whole, world_size=world_size)):
            yield Note(
                f"train.accumulate {accumulate}: the {counted(whole // world_size, 'image')} of a step make "
                f"{counted(micro_batches, 'piece')}, as batch norm needs two images in each",
                "warning",
            )
        for caution in cautions(self.recipe, validates=self.job.val is not None):
            yield Note(caution, "warning")
        dropped = self.count - min(self.count, self.steps * self.train.batch_size)
        if dropped:
            yield Note(
                f"{counted(dropped, 'image')} at the end of each epoch left out: too few for batch norm on every device"
            )
        if self.ranks_before != self.consensus.world_size:
            yield Note(
                f"this run had {counted(self.ranks_before, 'device')} and goes on with {self.consensus.world_size}: "
                "the last bits, and what dropout draws, will differ",
                "warning",
            )

    def _is_over(self) -> bool:
        stopping = self.train.early_stopping
        stopped_early = stopping is not None and self.at.waited >= stopping.patience
        return self.at.epoch >= self.train.epochs or stopped_early

    # One epoch

    def _epoch(self) -> Iterator[Event]:
        started, compiled, first = time.monotonic(), self.clock.seconds, self.at.step
        if first == 0:
            self.tally = Tally(self.fabric.device)
        self.learner.set_mode(self.at.epoch)
        epoch, told = self._images(), 0.0
        with closing(epoch.picked) as steps:
            for picked in steps:
                batch = min(self.train.batch_size, self.count - self.at.step * self.train.batch_size)
                self.learner.step(epoch, picked, whole=batch, tally=self.tally, number=self.at.step)
                self.at.step += 1
                yield StepDone(self.at.epoch, self.at.step, min(self.at.step * self.train.batch_size, self.count))
                if (compiling := self.clock.seconds - compiled) > told:
                    yield Note(f"compiling took {compiling - told:.1f} s, which is no step's time")
                    told = compiling
                yield from self._between_steps()
        yield from self.saver.written()
        self._check_finite()
        self.learner.end_epoch()
        self.tally.reduce(self.team.sum)
        self.consensus.broadcast(self.learner.buffers())
        train_metrics = self.tally.metrics()
        compile_s = self.clock.seconds - compiled
        seconds = time.monotonic() - started - compile_s
        images = self.count - first * self.train.batch_size
        done = partial(EpochDone, seconds=seconds, images_per_s=images / seconds, compile_s=compile_s)
        yield from self._end(train_metrics, done)

    def _images(self) -> Epoch:
        view, numbers = epoch_view(
            self.recipe.augment,
            n=len(self.job.train),
            image_size=self.recipe.data.side,
            epoch=self.at.epoch,
            train_seed=self.train.seed,
            epochs=self.train.epochs,
        )
        return self.job.train.epoch(
            order=self.mixture.order(self.train.seed, self.at.epoch, world_size=self.team.world_size),
            view=view,
            views=numbers,
            batch_size=self.train.batch_size,
            start_step=self.at.step,
            shard=(self.team.rank, self.team.world_size),
            channels_last=self.train.channels_last is True,
        )

    def _between_steps(self) -> Iterator[Event]:
        if self.at.step == self.steps:
            return  # the epoch's own check and checkpoint follow
        if self.at.step % _STEPS_BETWEEN_CHECKS == 0:
            self._check_finite()
        minutes = self.train.checkpoint_minutes
        is_due = minutes is not None and time.monotonic() - self.saved_at >= minutes * 60
        stopping, is_due = self.consensus.ask(self.stop, save=is_due)
        if is_due or stopping:
            self._check_finite()
            yield from self._save({}, is_best=False)
        if stopping:
            yield from self.saver.written(wait=True)
            raise self._stopped()

    def _check_finite(self) -> None:
        self.tally.check_finite(epoch=self.at.epoch, lr=self.learner.schedule.last_lr, gather=self.consensus.gather)

    def _check_diverged(self, metrics: dict[str, float]) -> None:
        """Raise for what the epoch's last steps did to the weights: no loss was worked out after them.

        Raises:
            DivergedError: with the epoch, what is not finite, and the learning rate.
        """
        bad = [f"{name} {value:g}" for name, value in metrics.items() if not math.isfinite(value)]
        if self.job.val is None and not _all_finite(self.learner.shipped):
            bad.append("the weights are NaN or infinite")
        if bad:
            raise DivergedError(
                f"training diverged in epoch {metrics['epoch']}: {', '.join(bad)}; learning rate {metrics['lr']:g}",
                hint=divergence_hint(int(metrics["epoch"]) - 1),
            )

    # What an epoch was worth

    def _end(self, train_metrics: dict[str, float], done: Callable[..., EpochDone]) -> Iterator[Event]:
        schedule = self.learner.schedule
        metrics = {"epoch": self.at.epoch + 1, "lr": schedule.last_lr} | train_metrics | self._validate()
        self._check_diverged(metrics)
        schedule.epoch_done(metrics)
        self.at.epoch, self.at.step = self.at.epoch + 1, 0
        is_best = self._judge(metrics)
        yield done(epoch=self.at.epoch, metrics=metrics, is_best=is_best)
        stopping, _ = self.consensus.ask(self.stop, now=True)
        stopping = stopping and not self._is_over()
        better = is_best and not self._last_is_best
        if better or self.at.epoch % self.train.checkpoint_epochs == 0 or self._is_over() or stopping:
            yield from self._save(metrics, is_best=is_best)
        if stopping or self._is_over():
            yield from self.saver.written(wait=True)
        if stopping:
            raise self._stopped()

    def _validate(self) -> dict[str, float]:
        if self.job.val is None:
            return {}
        metrics: dict[str, float] = {}
        if self.team.is_main_process:  # batch-norm statistics are each rank's own: the first rank's are what is saved
            precision = self.fabric.strategy.precision.forward_context
            with self.learner.eagerly():
                metrics = _validate(self.learner, self.job.val, max(self.train.batch_size, 64), precision)
        return self.team.broadcast(metrics)

    @property
    def _last_is_best(self) -> bool:
        return self.job.val is None or self.train.monitor == "last"

    def _judge(self, metrics: dict[str, float]) -> bool:
        """Whether this epoch is the best so far."""
        if self._last_is_best:
            return True
        value = worth(metrics, self.train.monitor)
        assert value is not None, "validated just now"
        stopping = self.train.early_stopping
        return self.at.judge(value, min_delta=stopping.min_delta if stopping else 0.0)

    # Saving

    def _save(self, metrics: dict[str, float], *, is_best: bool) -> Iterator[CheckpointSaved]:
        self.saved_at = time.monotonic()
        yield from save(
            self.job.checkpoints,
            self.at,
            self.learner,
            self.tally,
            consensus=self.consensus,
            device=self.fabric.device,
            metrics=metrics,
            is_best=is_best,
            saver=self.saver,
        )

    def _stopped(self) -> Exception:
        self.consensus.barrier()  # whoever started the processes may end them all once one has ended
        command = resume_command(self.recipe.role, self.job.run, allow_code=needs_allow_code(self.recipe.own_code))
        return self.stop.error(self.job.run, hint=f"to continue: {command}")


def _all_finite(module: nn.Module) -> bool:
    """Whether every weight and running statistic is finite (waits for the device); other buffers may hold limits."""
    statistics = [each for name, each in module.named_buffers() if name.rpartition(".")[2].startswith("running_")]
    tensors = [tensor for tensor in (*module.parameters(), *statistics) if tensor.is_floating_point()]
    return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())


@torch.no_grad()  # not inference_mode: what normalize caches is used in training too
def _validate(
    learner: Learner, loader: Loader, batch_size: int, precision: Callable[[], AbstractContextManager[Any]]
) -> dict[str, float]:
    """What ``train.monitor`` may name, of what is shipped, in eval mode; its mode is put back."""
    module = learner.shipped
    was_training = module.training
    module.eval()
    sums = None
    for batch in loader.plain(batch_size):
        with precision():
            logits = module(learner.normalize(batch.images)).float()
        loss = F.cross_entropy(logits, batch.labels, reduction="sum")
        row = torch.cat([loss[None], _counts(logits, batch.labels).flatten().to(loss.dtype)])
        sums = row if sums is None else sums + row
    module.train(was_training)
    assert sums is not None, "no split is empty"
    loss, *counted = sums.tolist()
    right, images, guessed = np.array(counted).reshape(3, -1)
    return {
        "val_loss": loss / len(loader),
        "val_top1": float(right.sum()) / len(loader),
        "val_balanced_accuracy": balanced_accuracy(right, images),
        "val_macro_f1": macro_f1(right, images, guessed),
    }


def _counts(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """By class, recognised images, images, and guesses: ``(3, C)``, without waiting for the device."""
    classes = torch.arange(logits.shape[1], device=logits.device)
    are, taken = labels[:, None] == classes, logits.argmax(1)[:, None] == classes
    return torch.stack([(are & taken).sum(0), are.sum(0), taken.sum(0)])
