"""Results to a folder: the document, the page and the picture."""

from __future__ import annotations

from pathlib import Path

from benchmarks.measure.document import Results, render
from benchmarks.measure.picture import draw_measured
from distill.files import write_atomically, write_json

__all__ = ["write_results"]


def write_results(results: Results, out: Path) -> None:
    """``cifar.json``, ``cifar.md`` and ``cifar.svg``, each whole or not at all."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "cifar.json", {"benchmark": "cifar", "results": [results[item] for item in sorted(results)]})
    write_atomically(out / "cifar.md", render(results))
    draw_measured(results, out / "cifar.svg")
