"""From a recipe's ``schedule`` section to learning rates, one for each step."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau

from distill.recipe.base import lower_is_better
from distill.recipe.optimization import (
    Constant,
    Cosine,
    Exponential,
    MultiStep,
    OneCycle,
    OptimSpec,
    Plateau,
    ScheduleSpec,
    Triangular,
    WarmRestarts,
)

__all__ = ["Schedule", "build_schedule", "factor_at", "has_momentum", "of_training", "rates_by_step", "warmup_steps"]

Factor = Callable[[float], float]

_OF_ITS_LENGTH = ("total_steps", "_schedule_phases")  # of OneCycleLR's state: the run's as it is now


class Schedule:
    """Learning rates of a run: ``step_done`` after every step, ``epoch_done`` after every validation."""

    def __init__(self, by_step: LambdaLR | OneCycleLR, plateau: ReduceLROnPlateau | None, warmup: int, monitor: str):
        self._by_step = by_step
        self._plateau = plateau
        self._warmup = warmup
        self._monitor = monitor
        self.steps = 0
        self.last_lr = self._largest()

    def _largest(self) -> float:
        return _base_lr(self._by_step.optimizer)

    def step_done(self) -> None:
        """Move to the next step's learning rate; ``last_lr`` is the one of the step that is done."""
        self.steps += 1
        self.last_lr = self._largest()
        if self._plateau is None or self.steps <= self._warmup:
            self._by_step.step()

    def epoch_done(self, metrics: dict[str, float]) -> None:
        """Let a plateau schedule look at the epoch's metrics."""
        if self._plateau is not None and self.steps >= self._warmup:
            known = self._monitor if self._monitor in metrics else of_training(self._monitor)
            self._plateau.step(metrics[known])

    def state_dict(self) -> dict[str, Any]:
        plateau = None if self._plateau is None else _plain(self._plateau.state_dict())
        return {"steps": self.steps, "by_step": _plain(self._by_step.state_dict()), "plateau": plateau}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        self._by_step.load_state_dict({k: v for k, v in state["by_step"].items() if k not in _OF_ITS_LENGTH})
        if self._plateau is not None:
            self._plateau.load_state_dict(state["plateau"])

    def go_to(self, steps: int) -> None:
        """Stand behind so many steps, where a run that goes on counts them otherwise than the one that stopped."""
        before, self.steps = self.steps, steps
        if steps != before and (self._plateau is None or before <= self._warmup):  # later, a plateau has the say
            self._by_step.last_epoch = steps - 1
            self._by_step.step()


def build_schedule(spec: ScheduleSpec, optimizer: Optimizer, *, epochs: int, steps_per_epoch: int) -> Schedule:
    """The schedule of a run of ``epochs * steps_per_epoch`` steps; it sets the first step's learning rate."""
    total = epochs * steps_per_epoch
    if isinstance(spec, OneCycle):
        return Schedule(_one_cycle(spec, optimizer, total), None, 0, "val_loss")
    warmup = warmup_steps(spec, epochs=epochs, steps_per_epoch=steps_per_epoch)
    plateau = _plateau(spec, optimizer) if isinstance(spec, Plateau) else None
    base_lr = _base_lr(optimizer)
    after = factor_at(
        spec, base_lr=base_lr, steps=max(total - warmup, 1), steps_per_epoch=steps_per_epoch, warmup=warmup
    )
    by_step = LambdaLR(optimizer, lambda step: (step + 1) / warmup if step < warmup else after(step - warmup))
    return Schedule(by_step, plateau, warmup, getattr(spec, "monitor", "val_loss"))


def _base_lr(optimizer: Optimizer) -> float:
    """The learning rate that a recipe names: groups that learn faster than that, by their own setting, don't count."""
    groups = [group for group in optimizer.param_groups if group.get("lr_scale", 1.0) <= 1.0]
    return max(group["lr"] for group in groups or optimizer.param_groups)


def rates_by_step(
    spec: ScheduleSpec, *, lr: float, steps_per_epoch: int, epochs: int, metrics: Sequence[dict[str, float]]
) -> list[float]:
    """The learning rate of every step of the epochs in ``metrics``, found by the schedule alone, without a network.

    Args:
        epochs: How many the run was to have; ``metrics`` has fewer where it stopped early.
        metrics: Lines of metrics.jsonl, which a plateau looks at.
    """
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr, momentum=0.9)
    schedule = build_schedule(spec, optimizer, epochs=epochs, steps_per_epoch=steps_per_epoch)
    rates = []
    for line in metrics:
        for _ in range(steps_per_epoch):
            optimizer.step()
            schedule.step_done()
            rates.append(schedule.last_lr)
        schedule.epoch_done(line)
    return rates


def warmup_steps(spec: ScheduleSpec, *, epochs: int, steps_per_epoch: int) -> int:
    """Steps of the linear rise, never more than the run has."""
    return round(min(getattr(spec, "warmup_epochs", 0.0), epochs) * steps_per_epoch)


def factor_at(spec: ScheduleSpec, *, base_lr: float, steps: int, steps_per_epoch: int, warmup: int = 0) -> Factor:
    """What the learning rate is multiplied by, as a function of the steps since the warm-up ended.

    Milestones and decays count epochs from the start of the run, warm-up included; a cosine spans what is left.
    """
    match spec:
        case Constant() | Plateau():
            return lambda step: 1.0
        case MultiStep(milestones=milestones, gamma=gamma):
            ends = sorted(milestone * steps_per_epoch for milestone in milestones)
            return lambda step: gamma ** bisect_right(ends, step + warmup)
        case Exponential(gamma=gamma):
            return lambda step: gamma ** ((step + warmup) // steps_per_epoch)
        case Cosine(min_lr=min_lr):
            return lambda step: _cosine(step / steps, min_lr / base_lr)
        case Triangular():
            return lambda step: _triangle(spec, step / max(steps - 1, 1))
        case WarmRestarts():
            return _warm_restarts(spec, min_lr=spec.min_lr / base_lr, steps_per_epoch=steps_per_epoch)
    raise AssertionError(f"no factor for {spec.kind}")


def _cosine(progress: float, floor: float) -> float:
    return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))


def _triangle(spec: Triangular, progress: float) -> float:
    if progress < spec.peak:
        return spec.start + (1.0 - spec.start) * progress / spec.peak
    return 1.0 + (spec.end - 1.0) * min((progress - spec.peak) / (1.0 - spec.peak), 1.0)


def _warm_restarts(spec: WarmRestarts, *, min_lr: float, steps_per_epoch: int) -> Factor:
    def factor(step: float) -> float:
        length = spec.first_cycle_epochs * steps_per_epoch
        while step >= length:
            step -= length
            length *= spec.cycle_factor
        return _cosine(step / length, min_lr)

    return factor


def of_training(monitor: str) -> str:
    """What a plateau watches in the place of ``monitor`` where nothing is validated: a folder may bring too little."""
    return "train_loss" if monitor == "val_loss" else "train_top1"


def has_momentum(optim: OptimSpec) -> bool:
    """Whether an optimiser has what ``cycle_momentum`` moves: a momentum, or Adam's first beta."""
    return hasattr(optim, "momentum") or hasattr(optim, "betas")


def _one_cycle(spec: OneCycle, optimizer: Optimizer, total: int) -> OneCycleLR:
    has_any = all("momentum" in group or "betas" in group for group in optimizer.param_groups)
    rise = spec.warmup_fraction
    if rise * (total + 1) <= 1.0:  # the first step is the peak's; at 1 torch would divide by the steps before it
        rise = (1.0 - 1e-9) / (total + 1)
    return OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=total + 1,  # torch counts the rate after the last step too
        pct_start=rise,
        div_factor=spec.initial_divisor,
        final_div_factor=spec.final_divisor,
        cycle_momentum=spec.cycle_momentum and has_any,
        base_momentum=spec.base_momentum,
        max_momentum=spec.max_momentum,
    )


def _plateau(spec: Plateau, optimizer: Optimizer) -> ReduceLROnPlateau:
    mode: Literal["min", "max"] = "min" if lower_is_better(spec.monitor) else "max"
    return ReduceLROnPlateau(optimizer, mode=mode, factor=spec.factor, patience=spec.patience, min_lr=spec.min_lr)


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """Without functions and methods: what torch.load(weights_only=True) accepts and load_state_dict sets again."""
    return {key: value for key, value in state.items() if not callable(value)}
