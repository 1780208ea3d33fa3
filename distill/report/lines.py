"""An epoch as one line of text, for run.log, for pipes, and for bars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from distill.events import EpochDone, StageProgress
from distill.text import duration

__all__ = ["StagePace", "accuracy_text", "epoch_line", "loss_parts", "loss_text"]


@dataclass(frozen=True)
class StagePace:
    """Where a stage was when it was first told of: one that goes on did not do in a moment what lay behind it."""

    done: int
    began: float

    def seconds_left(self, event: StageProgress, now: float) -> float | None:
        """About how long the rest takes at the pace so far; None where nothing is known of it."""
        here = event.done - self.done
        return (now - self.began) * (event.total - event.done) / here if here > 0 and event.total > 0 else None


def loss_parts(metrics: Mapping[str, float]) -> dict[str, float]:
    """The parts of the training loss in a line of metrics.jsonl, by name; a learned temperature is none."""
    return {
        key.removeprefix("train_"): value
        for key, value in metrics.items()
        if key.startswith("train_") and key not in ("train_loss", "train_top1", "train_temperature")
    }


def loss_text(metrics: Mapping[str, float]) -> str:
    """``loss 0.532 (ce 0.41 kd 2.1)``; the parts only where there are several.

    >>> loss_text({"train_loss": 0.532, "train_ce": 0.41, "train_kd": 2.1})
    'loss 0.532 (ce 0.41 kd 2.1)'
    """
    parts = loss_parts(metrics)
    text = f"loss {metrics['train_loss']:.3f}" if "train_loss" in metrics else ""
    if len(parts) > 1:
        text += f" ({' '.join(f'{name} {value:.3g}' for name, value in parts.items())})"
    if "train_temperature" in metrics:
        text += f" at T {metrics['train_temperature']:.3g}"
    return text


def accuracy_text(metrics: Mapping[str, float], best: float | None) -> str:
    """On validation images, and the best so far; where there are none, on the training images as they were trained on.

    >>> accuracy_text({"train_top1": 0.8, "val_top1": 0.71}, best=0.75), accuracy_text({"train_top1": 0.8}, best=None)
    ('val top-1 71.0% (best 75.0%)', 'train top-1 80.0%')
    """
    if (top1 := metrics.get("val_top1")) is not None:
        return f"val top-1 {top1:.1%} (best {top1 if best is None else best:.1%})"
    top1 = metrics.get("train_top1")
    return "" if top1 is None else f"train top-1 {top1:.1%}"


def epoch_line(event: EpochDone, *, epochs: int, best: float | None, left: float | None) -> str:
    """One epoch as one line; ``best`` is the best validation accuracy so far, ``left`` the seconds to come."""
    is_last = event.epoch >= epochs or left is None
    fields = [
        f"epoch {event.epoch:>{len(str(epochs))}}/{epochs}",
        loss_text(event.metrics),
        accuracy_text(event.metrics, best),
        f"{event.images_per_s:,.0f} images/s",
        f"{duration(event.seconds)} an epoch" if is_last else f"{duration(left)} left",
    ]
    return "  ".join(field for field in fields if field)
