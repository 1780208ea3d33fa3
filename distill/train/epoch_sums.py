"""An epoch's sums, kept on the device, so that no step waits for a number to reach the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from distill.data.images import UNLABELLED
from distill.errors import DivergedError
from distill.objectives import LossParts

__all__ = ["Tally", "divergence_hint"]

Gather = Callable[[list[float]], list[list[float]]]


def divergence_hint(epochs: int) -> str:
    """What to do about a loss that is not finite, ``epochs`` being done: the first one leaves no checkpoint behind."""
    kept = "; the best checkpoint so far is kept" if epochs else ""
    first = "lower optim.lr or the weights of the objective, add schedule.warmup_epochs or train.clip_norm"
    return f"{first}, or set train.precision=fp32{kept}"


class Tally:
    """Sums of loss, its parts and top-1 hits over an epoch, and the first step whose loss was not finite."""

    def __init__(self, device: torch.device) -> None:
        self._dtype = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
        self._device = device
        self._names: tuple[str, ...] = ()
        self._sums: Tensor | None = None
        self._bad: Tensor | None = None

    def add(self, result: LossParts, logits: Tensor, labels: Tensor, *, step: int) -> None:
        """Count one batch; ``logits`` are ``(B, C)``, ``labels`` ``(B,)``; top-1 is of the images that have one."""
        images = labels.shape[0]
        values = [result.loss.detach(), *result.parts.values()]
        means = torch.stack([value.detach().to(self._dtype) for value in values])
        hits = (logits.detach().argmax(1) == labels).sum().to(self._dtype)
        labelled = (labels != UNLABELLED).sum().to(self._dtype)
        row = torch.cat([means * images, torch.stack([hits, labelled, torch.full_like(hits, images)])])
        if self._sums is None or self._bad is None:
            self._names = ("loss", *result.parts)
            self._sums = torch.zeros_like(row)
            self._bad = torch.full((1 + len(values),), -1.0, dtype=self._dtype, device=self._device)
        self._sums += row
        here = torch.cat([torch.full_like(means[:1], step), means])
        is_first = ~means[0].isfinite() & (self._bad[0] < 0)
        self._bad = torch.where(is_first, here, self._bad)

    def check_finite(self, *, epoch: int, lr: float, gather: Gather = lambda row: [row]) -> None:
        """Raise if a loss since the epoch began was not finite (waits for the device).

        Args:
            gather: From one process's numbers to those of all, so that all raise the same.

        Raises:
            DivergedError: with the epoch, the step, the learning rate and the parts of the loss.
        """
        if self._bad is None:
            return
        bad = [row for row in gather(self._bad.tolist()) if row[0] >= 0]
        if not bad:
            return
        step, *values = min(bad, key=lambda row: row[0])
        parts = ", ".join(f"{name} {value:g}" for name, value in zip(self._names, values, strict=True))
        raise DivergedError(
            f"the loss is not finite at epoch {epoch + 1}, step {int(step) + 1}: {parts}; learning rate {lr:g}",
            hint=divergence_hint(epoch),
        )

    def metrics(self) -> dict[str, float]:
        """Means over the epoch: ``train_loss``, ``train_<part>``, ``train_top1`` (waits for the device)."""
        assert self._sums is not None, "an epoch without a step"
        *totals, hits, labelled, images = self._sums.tolist()
        means = {f"train_{name}": total / images for name, total in zip(self._names, totals, strict=True)}
        return means | {"train_top1": hits / max(labelled, 1.0)}

    def reduce(self, total: Callable[[Tensor], Tensor]) -> None:
        """Take the sums of all ranks: ``total`` adds a tensor up over them."""
        if self._sums is not None:
            self._sums = total(self._sums)

    def state_dict(self) -> dict[str, object]:
        tensors = {"sums": self._sums, "bad": self._bad}
        return {"names": list(self._names)} | {key: None if t is None else t.cpu() for key, t in tensors.items()}

    def begin_as(self, state: dict[str, Any]) -> None:
        """Begin as empty as another process's saved tally is full: sums over all processes take part in both."""
        if self._sums is None and state["sums"] is not None:
            self._names = tuple(state["names"])
            self._sums, bad = (state[key].to(self._device, self._dtype) for key in ("sums", "bad"))
            self._sums, self._bad = torch.zeros_like(self._sums), torch.full_like(bad, -1.0)

    def add_state(self, state: dict[str, Any]) -> None:
        """Go on from a saved tally, or from several one after the other."""
        if state["sums"] is None:
            return
        sums, bad = (state[key].to(self._device, self._dtype) for key in ("sums", "bad"))
        self._names = tuple(state["names"])
        self._sums = sums if self._sums is None else self._sums + sums
        if self._bad is None or self._bad[0] < 0:
            self._bad = bad
