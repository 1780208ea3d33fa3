"""Whatever a reference names that classifies pixels: a run, or an exported file."""

from __future__ import annotations

from pathlib import Path

import torch

from distill.models.classifier import Classifier
from distill.models.onnx_open import is_exported_file, open_onnx
from distill.models.trained import load_trained
from distill.runs import open_run

__all__ = ["open_model"]


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
