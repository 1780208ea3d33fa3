"""Measure a finished run: on the test set, or on what picked its checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distill.devices import resolve_device, set_threads
from distill.errors import RunError, UsageError
from distill.evaluation.test_set import assess, assess_file
from distill.events import Note
from distill.models.onnx_open import is_exported_file, open_onnx
from distill.pipeline.context import Options
from distill.references import run_of
from distill.results.metrics import EvalResult
from distill.results.rows import Evaluation
from distill.runs import RunFolder, open_run
from distill.team.watch import watching

__all__ = ["TTA", "evaluate_run"]

TTA = ("none", "flip")


@watching()
def evaluate_run(
    reference: Any,
    *,
    split: str = "test",
    again: bool = False,
    plots: bool = True,
    tta: str = "none",
    options: Options | None = None,
) -> Evaluation:
    """Accuracy, precision, recall and F1 by class, calibration and confusion of a run's best checkpoint, or of a file.

    What it finds is kept in the run's ``evaluation/``, or in one beside the file; a run's figures on the test set enter
    its ``result.json`` too.

    Args:
        reference: A run (folder, name or result), or an exported file, which is asked about the data that the recipe in
            it names.
        split: ``test`` or ``val``.
        again: Ask the network even where the answers are stored.
        plots: Draw the confusion matrix and the classes into ``evaluation/``; not with test-time augmentation.
        tta: Test-time augmentation: ``none``, or ``flip``, the mean of an image's logits and its mirror image's. What
            that finds is told and kept nowhere.

    Raises:
        UsageError: There is no such test-time augmentation.
    """
    options = options or Options()
    if tta not in TTA:
        raise UsageError(f"no test-time augmentation {tta!r}", hint=" or ".join(TTA))
    mirrored = tta == "flip"
    if options.threads is not None:
        set_threads(options.threads)
    reference = run_of(reference)
    what = "test set" if split == "test" else "validation images"
    if is_exported_file(reference):
        file = open_onnx(reference, threads=options.threads or 1)
        options.tell(Note(f"measuring {file.place} on its {what}"))
        assessment = assess_file(file, split=split, again=again, mirrored=mirrored)
        folder = file.path.parent / "evaluation" / file.path.stem
    else:
        run = open_run(reference, runs_dir=options.runs_dir)
        options.tell(Note(f"measuring {run.path} on its {what}"))
        folder = run.path / "evaluation"
        assessment = assess(run, split=split, device=resolve_device(options.device), again=again, mirrored=mirrored)
        if split == "test" and not mirrored:
            _keep(run, assessment.result)
    files = _draw(folder, split, assessment.result) if plots and not mirrored else ()
    return Evaluation(assessment.run, assessment.split, assessment.result, files, tta)


def _keep(run: RunFolder, result: EvalResult) -> None:
    """Add the test metrics to result.json, where there is one to add them to."""
    metrics: dict[str, Any] = {
        "test_top1": result.top1,
        "test_top5": result.top5,
        "test_macro_f1": result.macro_f1,
        "test_nll": result.nll,
        "test_ece": result.ece,
    }
    try:
        before = run.result()
    except RunError:  # the measuring is not to fail over a file that it does not need
        return
    if before | metrics != before:
        run.write_result(before | metrics)


def _draw(folder: Path, split: str, result: EvalResult) -> tuple[str, ...]:
    from distill.report.plots import plot_classes, plot_confusion

    labels = [each.label for each in result.per_class]
    return (
        str(plot_confusion(result.confusion, labels, folder / f"confusion_{split}.svg")),
        str(plot_classes(result.per_class, folder / f"classes_{split}.svg")),
    )
