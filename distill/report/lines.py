"""An epoch as one line of text, for run.log, for pipes, and for bars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from distill.events import EpochDone, StageProgress
from distill.text import duration

__all__ = ["StagePace", "epoch_line", "loss_parts", "loss_text"]


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
    """The parts of the training loss in a line of metrics.jsonl, by name."""
    return {
        key.removeprefix("train_"): value
        for key, value in metrics.items()
        if key.startswith("train_") and key not in ("train_loss", "train_top1")
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
    return text


def epoch_line(event: EpochDone, *, epochs: int, best: float | None, left: float | None) -> str:
    """One epoch as one line; ``best`` is the best validation accuracy so far, ``left`` the seconds to come."""
    top1 = event.metrics.get("val_top1")
    accuracy = "" if top1 is None else f"val top-1 {top1:.1%} (best {top1 if best is None else best:.1%})"
    is_last = event.epoch >= epochs or left is None
    fields = [
        f"epoch {event.epoch:>{len(str(epochs))}}/{epochs}",
        loss_text(event.metrics),
        accuracy,
        f"{event.images_per_s:,.0f} images/s",
        f"{duration(event.seconds)} an epoch" if is_last else f"{duration(left)} left",
    ]
    return "  ".join(field for field in fields if field)
