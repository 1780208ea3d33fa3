"""Timing the rows of a comparison: one model of each, in turn, and what a reader must know of the times."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from distill.comparison.entries import EvaluatedRun, precision_notes
from distill.comparison.files import EvaluatedFile
from distill.comparison.paired_rows import beside
from distill.comparison.selection import naming
from distill.comparison.subjects import Subjects
from distill.errors import DistillError
from distill.evaluation.latency import measure_latency
from distill.events import Tell
from distill.models.trained import Trained, load_trained
from distill.results.figures import Latency
from distill.results.rows import Row

__all__ = ["Timings", "busy_notes", "measure", "with_latency"]

_BUSY = 5  # times the median that the slowest tenth of the calls takes

Timings = dict[str, dict[int, Latency]]


def measure(
    subjects: Subjects, device: torch.device, *, seconds_per_model: float, is_named: bool, notes: list[str], tell: Tell
) -> Timings:
    """Time the newest run of each row on ``device``, and every file on the CPU, all in turn.

    Args:
        is_named: The runs were asked for: one that cannot be loaded is an error, and else a note.

    Returns:
        By a row's ``run``, for each batch size.

    Raises:
        DistillError: A run that was asked for cannot be loaded.
    """
    models = _loaded(subjects.groups, device, None if is_named else notes)
    files = {each.file.place: each for each in subjects.files.values()}
    notes += _file_notes(files, device)
    notes += precision_notes("timed", ((each.recipe.name, each.precision) for each in models.values()))
    if not models and not files:
        return {}
    sides = {place: trained.normalize.input_size for place, trained in models.items()}
    sides |= {place: entry.file.image_size for place, entry in files.items()}
    forwards: dict[str, Callable[[Tensor], Any]] = {place: trained.to_time() for place, trained in models.items()}
    forwards |= {place: entry.file.to_time() for place, entry in files.items()}
    return measure_latency(
        forwards,
        {place: (3, side, side) for place, side in sides.items()},
        device=device,
        seconds_per_model=seconds_per_model,
        tell=tell,
    )


def _loaded(
    groups: Mapping[str, list[EvaluatedRun]], device: torch.device, notes: list[str] | None
) -> dict[str, Trained]:
    """The newest model of each row; where there are notes to write, one that cannot be loaded is one."""
    loaded = {}
    for newest in (group[-1].run for group in groups.values()):
        try:
            loaded[str(newest.path)] = load_trained(newest, device=device)
        except (DistillError, OSError) as error:
            if notes is None:
                raise
            notes.append(f"not timed: {naming(newest, error)}")
    return loaded


def _file_notes(files: Mapping[str, EvaluatedFile], device: torch.device) -> list[str]:
    if not files:
        return []
    notes = ["files are timed from bytes to logits, runs from normalised images: scaling is in a file's time"]
    return notes + ([] if device.type == "cpu" else [f"files are timed on the CPU, runs on {device.type}"])


def with_latency(rows: Sequence[Row], timings: Timings) -> list[Row]:
    """The rows with their times, each held against its teacher's."""
    timed = [row.with_latency(timings.get(row.run, {})) for row in rows]
    by_run = {row.run: row for row in timed}
    return [row if row.teacher is None else beside(row, by_run[row.teacher]) for row in timed]


def busy_notes(rows: Sequence[Row]) -> list[str]:
    """Times that vary by far more than those of a machine which does nothing else."""
    shares = {
        row.name: row.latency_b1_p90_ms / row.latency_b1_ms
        for row in rows
        if row.latency_b1_ms and row.latency_b1_p90_ms
    }
    worst = max(shares, key=lambda name: shares[name], default=None)
    if worst is None or shares[worst] < _BUSY:
        return []
    return [
        f"the machine was busy while it timed: one call in ten of {worst} took {shares[worst]:.0f} times the median or "
        "more; measure again when it is not"
    ]
