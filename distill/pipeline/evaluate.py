"""Measure finished runs: on the test set, or on what picked their checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distill.devices import resolve_device
from distill.errors import RunError, UsageError
from distill.evaluation.assess import IMAGES_OF, DatasetCache, assess
from distill.evaluation.by_class import few_images_note
from distill.evaluation.calibrate import kept_temperature, temperature_of
from distill.evaluation.confidence import reliability
from distill.evaluation.corruptions import CORRUPTION_IMAGES, against, measure_corruptions
from distill.evaluation.stored import keeping
from distill.evaluation.target import EvaluationTarget, evaluation_target
from distill.events import Note
from distill.models.onnx_open import OnnxClassifier, is_exported_file, open_onnx
from distill.pipeline.context import Options, in_asked_threads
from distill.references import run_of
from distill.results.calibration import Temperature
from distill.results.corruptions import CorruptionResult
from distill.results.evaluations import Against, Evaluation, Evaluations
from distill.results.metrics import EvalResult
from distill.runs import RunFolder, open_run
from distill.team.watch import watching

__all__ = ["TTA", "evaluate_run", "evaluate_runs"]

TTA = ("none", "flip")


@dataclass(frozen=True)
class _Asked:
    """What is to be measured of each model."""

    split: str
    again: bool
    plots: bool
    tta: str
    calibrated: bool
    corruptions: bool
    corruption_images: int

    def __post_init__(self) -> None:
        if self.tta not in TTA:
            raise UsageError(f"no test-time augmentation {self.tta!r}", hint=" or ".join(TTA))
        if self.split not in IMAGES_OF:
            raise UsageError(f"no split {self.split!r}", hint="test or val")
        if self.tta != "none" and (self.calibrated or self.corruptions):
            raise UsageError(
                f"test-time augmentation ({self.tta}) is kept apart from calibration and corruptions",
                hint="one after the other",
            )


@watching()
@in_asked_threads
def evaluate_run(
    reference: Any,
    *,
    split: str = "test",
    again: bool = False,
    plots: bool = True,
    tta: str = "none",
    calibrated: bool = False,
    corruptions: bool = False,
    corruption_images: int = CORRUPTION_IMAGES,
    options: Options | None = None,
) -> Evaluation:
    """Measure a run's best checkpoint, or a file: accuracy, per-class precision, recall and F1, calibration, confusion.

    The results are kept in the run's ``evaluation/``, or in one beside the file; a run's test-set results are also
    written to its ``result.json``.

    Args:
        reference: A run (folder, name or result), or an exported file, which is evaluated on the data that its embedded
            recipe names.
        split: ``test`` or ``val``.
        again: Run the network even where its outputs are stored.
        plots: Plot the results into ``evaluation/``; not with test-time augmentation.
        tta: Test-time augmentation: ``none``, or ``flip``, the mean of an image's logits and its mirror image's.
            Its results are reported but not kept.
        calibrated: Fit a temperature on the validation images, if none is stored, and report calibration with it too.
        corruptions: Measure accuracy under six corruptions at five severities.
        corruption_images: How many images of the split to corrupt, the same for every model.

    Raises:
        UsageError: There is no such test-time augmentation, or it conflicts with another argument.
        DataError: The split has no images, or ``calibrated`` has no validation images.

    Example:
        >>> found = evaluate("quickstart_student", split="val")
        >>> len(found.to_json()["per_class"]), 0 <= found.result.top1 <= 1
        (10, True)
    """
    asked = _Asked(split, again, plots, tta, calibrated, corruptions, corruption_images)
    options = options or Options()
    return _evaluate(_subject(run_of(reference), options), asked, DatasetCache(), options)


@watching()
@in_asked_threads
def evaluate_runs(
    references: Sequence[Any],
    *,
    split: str = "test",
    again: bool = False,
    plots: bool = True,
    tta: str = "none",
    calibrated: bool = False,
    corruptions: bool = False,
    corruption_images: int = CORRUPTION_IMAGES,
    figure: str | Path | None = None,
    options: Options | None = None,
) -> Evaluations:
    """Evaluate several runs and files in sequence; under corruptions each is compared with the first.

    Args:
        split, again, plots, tta, calibrated, corruptions, corruption_images: As for ``evaluate``.
        figure: Where to plot all of them under corruptions in one figure (.svg, .png or .pdf).

    Raises:
        UsageError, DataError: As for ``evaluate``; nothing is measured if a reference or the figure's name is invalid.

    Example:
        >>> both = evaluate_runs(["quickstart_teacher", "quickstart_student"], plots=False)
        >>> both.names, [each.result.n for each in both.runs]
        (('quickstart_teacher', 'quickstart_student'), [359, 359])
    """
    asked = _Asked(split, again, plots, tta, calibrated, corruptions, corruption_images)
    options, data = options or Options(), DatasetCache()
    if figure is not None and not corruptions:
        raise UsageError("a figure is of runs under corruptions", hint="corruptions=True")
    if figure is not None:
        from distill.report.figure import check_suffix

        check_suffix(Path(figure))
    subjects = [_subject(run_of(each), options) for each in references]
    if not subjects:
        raise UsageError("no run to evaluate", hint="evaluate_runs(['r18_small'])")
    found = tuple(_evaluate(each, asked, data, options) for each in subjects)
    names, roles = zip(*(_name_and_role(each) for each in subjects), strict=True)
    many = Evaluations(found, names, roles)
    if not corruptions:
        return many
    many = _against(subjects, many, asked)
    if figure is None:
        return many
    from distill.report.evaluation_plots import plot_corruptions

    shown = _of_the_same_images([each.corruptions for each in found])
    results = [(many.labels[place], found[place].corruptions) for place in shown]
    if len(shown) < len(found):
        many = replace(many, notes=(*many.notes, f"{figure} shows those that were asked about the first one's images"))
    return replace(many, figure=str(plot_corruptions(results, Path(figure), split=split)))


_Subject = RunFolder | OnnxClassifier


def _subject(reference: Any, options: Options) -> _Subject:
    if is_exported_file(reference):
        return open_onnx(reference, threads=options.threads or 1)
    return open_run(reference, runs_dir=options.runs_dir)


def _name_and_role(subject: _Subject) -> tuple[str, str]:
    if isinstance(subject, OnnxClassifier):
        return subject.name, subject.about.role
    recipe = subject.recipe()
    return recipe.name, recipe.role


def _evaluate(subject: _Subject, asked: _Asked, data: DatasetCache, options: Options) -> Evaluation:
    target = evaluation_target(subject, device=resolve_device(options.device))
    mirrored = asked.tta == "flip"
    keeps = target.keeps and not mirrored
    if asked.corruptions and not keeps:
        raise UsageError(
            f"{target.place} may only be read, and what --corruptions measures is kept there",
            hint="copy it to where you may write",
        )
    if not target.keeps and not mirrored:
        options.tell(Note(f"{target.place} may only be read: what is found is not kept, and not plotted", "warning"))
    assessment = assess(target, split=asked.split, again=asked.again, data=data, mirrored=mirrored, tell=options.tell)
    keeps = keeps and assessment.is_kept  # else nor is what is larger
    if isinstance(subject, RunFolder) and asked.split == "test" and keeps:
        with keeping(f"{target.place}: its test metrics are", options.tell):
            _keep(subject, assessment.result)
    note = few_images_note(assessment.result.per_class, what=IMAGES_OF[asked.split])
    evaluation = Evaluation(
        run=assessment.place,
        split=assessment.split,
        result=assessment.result,
        tta=asked.tta,
        reliability=assessment.reliability,
        risk_coverage=assessment.risk_coverage,
        notes=() if note is None else (note,),
    )
    if mirrored:
        return evaluation
    temperature = _temperature(target, asked, data, options)
    if temperature is not None:
        after = reliability(assessment.logits, assessment.labels, temperature=temperature.value)
        evaluation = replace(evaluation, temperature=temperature, calibrated=after)
    if asked.corruptions:
        evaluation = replace(evaluation, corruptions=_corrupted(target, asked, data, options))
    if asked.plots and keeps:
        with keeping(f"{target.place}: its plots are", options.tell):
            return replace(evaluation, plots=_draw(target.folder, evaluation))
    return evaluation


def _temperature(target: EvaluationTarget, asked: _Asked, data: DatasetCache, options: Options) -> Temperature | None:
    """Fitted now where that is asked for, else as an earlier call left it."""
    if asked.calibrated:
        return temperature_of(target, again=asked.again, data=data, tell=options.tell)
    return kept_temperature(target, data)


def _corrupted(target: EvaluationTarget, asked: _Asked, data: DatasetCache, options: Options) -> CorruptionResult:
    options.tell(Note(f"measuring {target.place} under corruptions"))
    return measure_corruptions(
        target, split=asked.split, images=asked.corruption_images, again=asked.again, data=data, tell=options.tell
    )


def _against(subjects: Sequence[_Subject], many: Evaluations, asked: _Asked) -> Evaluations:
    """With every other one held against the first, where their images are the same; where not, that is said."""
    first, *others = [evaluation_target(each) for each in subjects]
    found, notes = [], []
    for target in others:
        test = against(target, first, split=asked.split, images=asked.corruption_images)
        if test is None:
            notes.append(f"{target.place} is not held against {first.place}: they were asked about different images")
            continue
        change = test.difference
        found.append(
            Against(target.place, first.place, change.estimate, change.low, change.high, test.p_value, test.verdict)
        )
    return replace(many, against=tuple(found), notes=tuple(notes))


def _of_the_same_images(results: Sequence[CorruptionResult | None]) -> list[int]:
    """Places of those that were asked about the corrupted images that the first one was asked about."""
    keys = [None if each is None else each.images_key for each in results]
    return [place for place, key in enumerate(keys) if key == keys[0]]


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


def _draw(folder: Path, evaluation: Evaluation) -> tuple[str, ...]:
    from distill.report.evaluation_plots import draw_evaluation

    return tuple(map(str, draw_evaluation(folder, evaluation)))
