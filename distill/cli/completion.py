"""What a shell may complete: recipes, runs, settings, devices; nothing that takes time to find."""

from __future__ import annotations

import os
from pathlib import Path

from distill.files import expanded

__all__ = ["complete_devices", "complete_recipes", "complete_runs", "complete_settings"]


def complete_recipes(incomplete: str) -> list[str]:
    """Names of bundled recipes, and YAML files, that begin so."""
    from distill.recipe import bundled_recipes

    folder, _, start = incomplete.rpartition("/")
    files = [str(path) for path in Path(folder or ".").glob(f"{start}*.yaml")]
    return sorted(name for name in bundled_recipes() if name.startswith(incomplete)) + sorted(files)


def complete_runs(incomplete: str) -> list[str]:
    """Names of runs below the runs folder that begin so."""
    root = expanded(os.environ.get("DISTILL_RUNS", "runs"))
    return sorted(path.name for path in root.glob(f"{incomplete}*") if path.is_dir())


def complete_settings(incomplete: str) -> list[str]:
    """Keys of a recipe that begin so, each with the sign that its value follows."""
    from distill.recipe import describe_schema

    return sorted({f"{key.path}=" for key in describe_schema() if key.default and key.path.startswith(incomplete)})


def complete_devices(incomplete: str) -> list[str]:
    """Names that ``--device`` takes; which of them are here would take seconds to find out."""
    return [name for name in ("auto", "cpu", "cuda", "cuda:0", "cuda:1", "mps") if name.startswith(incomplete)]
