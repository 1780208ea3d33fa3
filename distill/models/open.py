"""Whatever a reference names that classifies pixels: a run, or an exported file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from distill.devices import resolve_device, threads
from distill.models.classifier import Classifier
from distill.models.onnx_open import is_exported_file, open_onnx
from distill.models.trained import load_trained
from distill.references import folder_of, run_of
from distill.runs import open_run

__all__ = ["load_model", "open_model"]


def open_model(reference: str | Path, *, runs_dir: Path, device: torch.device, threads: int = 1) -> Classifier:
    """Open a run (its folder or name) or a file that ``distill export`` or ``quantize`` wrote.

    Args:
        device: Where a run's network goes; files are computed on the CPU.
        threads: Of a file's operations; a run's network uses torch's.

    Raises:
        RunError: There is no such run or file, or it is damaged.
        UsageError: A file of another kind.
    """
    if is_exported_file(reference):
        return open_onnx(reference, threads=threads)
    return load_trained(open_run(reference, runs_dir=runs_dir), device=device)


def load_model(reference: Any, *, runs_dir: str | Path = "runs", device: str | None = None) -> Classifier:
    """Load a finished run (its name, folder, or what training returned) or an exported file, ready to classify.

    ``load_model("r18_small").logits(pixels)`` takes uint8 pixels ``(N, 3, S, S)`` with ``S = .image_size`` and returns
    float32 logits ``(N, C)``, in the order of ``.classes``.

    Args:
        device: Where to place a run's network (``cpu``, ``cuda``, ``mps``); None: the best available.

    Raises:
        RunError: There is no such run or file, or it is damaged.

    Example:
        >>> import torch
        >>> model = load_model("exports/quickstart_student.onnx")
        >>> pixels = torch.zeros(2, 3, model.image_size, model.image_size, dtype=torch.uint8)
        >>> model.logits(pixels).shape
        torch.Size([2, 10])
    """
    reference = run_of(reference)
    folder = folder_of(runs_dir, "runs_dir")
    return open_model(reference, runs_dir=folder, device=resolve_device(device), threads=max(threads(), 1))
