"""A teacher that was asked before: logits looked up in a bank by view and image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from distill.data.batches import Batch, OnHost, fits_on
from distill.models.taps import POOLED
from distill.objectives import NetworkOutput
from distill.teaching.bank import Bank
from distill.teaching.bank_info import chunk_bounds

__all__ = ["EnsembleTeacher", "StoredTeacher"]

_MAX_FILES = 512  # each costs a handle
_RESIDENT_BYTES = {"cpu": 2 << 30, "cuda": 8 << 30, "mps": 1 << 30}  # a bank up to this lies where the student learns


class StoredTeacher:
    """Looks a batch's logits up in a bank, on the student's device where the bank fits there."""

    def __init__(self, bank: Bank, *, device: torch.device, views: int) -> None:
        self.bank = bank
        self._device = device
        self._images = bank.info.images
        self._resident: Tensor | None = None
        self._mapped: dict[tuple[int, int], np.ndarray] = {}
        self._rows = chunk_bounds(bank.info)[0][1]  # of a file
        size_bytes = views * bank.info.view_bytes
        if size_bytes <= _RESIDENT_BYTES.get(device.type, 0) and fits_on(device, size_bytes):
            stacked = np.concatenate([bank.view(number) for number in range(views)])
            self._resident = torch.from_numpy(stacked).to(device)

    def outputs(self, batch: Batch) -> NetworkOutput:
        """Teacher logits of a batch, float32 ``(B, C)``, and ``pooled`` features where the bank has them."""
        if self._resident is not None:
            answers = self._resident.index_select(0, batch.views * self._images + batch.index).float()
        else:
            answers = self._read(batch.host)
        if not self.bank.info.features:
            return NetworkOutput(answers)
        logits, pooled = answers.split([len(self.bank.info.classes), self.bank.info.features], dim=1)
        return NetworkOutput(logits.contiguous(), {POOLED: pooled.contiguous()})

    def _read(self, images: OnHost) -> Tensor:
        # Pinned: another memory's copy to a GPU would wait for it.
        pinned = self._device.type == "cuda"
        found = torch.empty((len(images.index), self.bank.info.width), dtype=torch.float32, pin_memory=pinned)
        logits = found.numpy()
        for number in np.unique(images.views):
            here = images.views == number
            index = images.index[here]
            parts, answers = index // self._rows, np.empty((len(index), found.shape[1]), np.float32)
            for part in np.unique(parts):
                at = parts == part
                answers[at] = self._file(int(number), int(part))[index[at] - part * self._rows]
            logits[here] = answers
        return found.to(self._device, non_blocking=True)

    def _file(self, number: int, part: int) -> np.ndarray:
        """A part of a view, mapped: of a large bank no more is in memory than the system has room for."""
        if (number, part) not in self._mapped:
            if len(self._mapped) >= _MAX_FILES:
                self._mapped.clear()
            self._mapped[number, part] = self.bank.part(number, part)
        return self._mapped[number, part]


class EnsembleTeacher:
    """The weighted mean of several teachers' logits."""

    def __init__(self, teachers: Sequence[StoredTeacher], weights: Sequence[float]) -> None:
        total = sum(weights)
        self._teachers = [(teacher, weight / total) for teacher, weight in zip(teachers, weights, strict=True)]

    def outputs(self, batch: Batch) -> NetworkOutput:
        """Teacher logits of a batch: float32 ``(B, C)``."""
        return NetworkOutput(
            torch.stack([each.outputs(batch).logits * weight for each, weight in self._teachers]).sum(0)
        )
