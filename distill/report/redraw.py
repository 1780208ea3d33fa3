"""Every picture of a run again, from the numbers in its folder; no model, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from distill.errors import RunError
from distill.evaluation.stored import read_evaluation
from distill.files import read_json
from distill.report.evaluation_plots import draw_evaluation
from distill.report.plots import plot_run
from distill.results.evaluations import Evaluation
from distill.results.metrics import EvalResult
from distill.runs import RunFolder

__all__ = ["redraw"]


def redraw(run: RunFolder) -> list[Path]:
    """Draw a run's curves and, where it was evaluated, all that is stored of that.

    Raises:
        RunError: The numbers are damaged.
    """
    files = plot_run(
        run.metrics(), run.plots, name=f"{run.name}/{run.path.name}", rates=_rates(run.path / "rates.json")
    )
    for split in ("val", "test"):
        source = run.evaluation / f"{split}.json"
        if source.is_file():
            files += _evaluation(source, split)
    return files


def _rates(path: Path) -> tuple[float, Sequence[float]] | None:
    """Steps an epoch and the learning rate of each step, where the run left them."""
    if not path.is_file():
        return None
    hint = "the picture is drawn by epoch without it"
    tree = read_json(path, hint=hint)
    try:
        return float(tree["steps_per_epoch"]), [float(rate) for rate in tree["lr"]]
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path}: damaged: {error}", hint=f"remove it: {hint}") from error


def _evaluation(source: Path, split: str) -> list[Path]:
    hint = f"measure it again: distill evaluate {source.parent.parent} --split {split} --again"
    try:
        result = EvalResult.from_json(read_json(source, hint=hint)["result"])
        place = str(source.parent.parent)
        stored = read_evaluation(source.parent, split, place=place)
        return draw_evaluation(source.parent, stored or Evaluation(place, split, result))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise RunError(f"{source}: damaged: {error}", hint=hint) from error
