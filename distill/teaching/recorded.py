"""Whom a run learned from, by its record: where its teacher, or its banks, are now, and whether they are the same."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import torch

from distill.errors import DistillError
from distill.files import sha256_file
from distill.runs import RunFolder
from distill.runs.find import open_named, place_named
from distill.teaching.bank import Bank
from distill.teaching.identity import read_identity

__all__ = ["former_bank", "former_file", "former_teacher", "open_former_teacher"]

_CPU = torch.device("cpu")


def former_teacher(run: RunFolder) -> Path | None:
    """The folder of the run that taught this one; None where it names none. Nothing may be there."""
    name, weights = _recorded(run, "run"), _recorded(run, "sha256")
    return None if name is None else place_named(name, run, fits=lambda place: weights in (None, _weights_of(place)))


def open_former_teacher(run: RunFolder, *, runs_dir: Path, device: torch.device = _CPU) -> tuple[RunFolder, str] | None:
    """The run that taught this one, and in what it is another by now: ``weights``, ``network``, or nothing.

    None where it names none.

    Raises:
        RunError: It is not here, not finished or damaged.
    """
    if (place := former_teacher(run)) is None:
        return None
    teacher = open_named(str(place), run, runs_dir=runs_dir)
    here = read_identity(teacher, device=device)
    pairs = {
        "weights": (_recorded(run, "sha256"), here.weights),
        "network": (_recorded(run, "architecture"), here.architecture),
    }
    return teacher, ", ".join(part for part, (was, now) in pairs.items() if was not in (None, now))


def former_file(name: str, run: RunFolder) -> Path:
    """The ONNX file that taught a run, by its recipe's name for it."""
    content = _recorded(run, "sha256")
    return place_named(name, run, fits=lambda place: content in (None, _content_of(place)))


def former_bank(name: str, run: RunFolder, *, sha256: str | None) -> Path:
    """A bank that a run learned from.

    Args:
        sha256: Of the weights of the bank's teacher, as the run's record has it.
    """
    return place_named(name, run, fits=lambda place: sha256 in (None, _teacher_of(place)))


def _recorded(run: RunFolder, key: str) -> str | None:
    value = (run.info.teacher or {}).get(key)
    return value if isinstance(value, str) else None


def _weights_of(place: Path) -> str | None:
    with suppress(DistillError):
        return read_identity(RunFolder(place), device=_CPU).weights
    return None


def _content_of(place: Path) -> str | None:
    with suppress(OSError):
        return sha256_file(place)
    return None


def _teacher_of(bank: Path) -> str | None:
    with suppress(DistillError):
        return Bank.read(bank).info.identity.weights
    return None
