"""The row of one recipe's runs: means over its seeds, and what one of them costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from distill.comparison.entries import EvaluatedRun
from distill.comparison.reference import ReferenceTeacher
from distill.evaluation.agreement import agreement_if_alike
from distill.evaluation.mean_std import mean_std
from distill.results.rows import Row

__all__ = ["run_row"]


def run_row(
    group: Sequence[EvaluatedRun], teachers: Mapping[str, ReferenceTeacher | None], *, test_set: str | None
) -> Row:
    """A row, not timed.

    Args:
        group: Seeds of one recipe, the newest last: parameters and size are its.
        teachers: By the paths of runs.
        test_set: A name for the images that they were tested on.
    """
    newest, by_seed = group[-1], sorted(group, key=lambda entry: entry.recipe.train.seed)
    top1, std = mean_std([entry.assessment.result.top1 for entry in group])
    pairs = [(entry, reference) for entry in group if (reference := teachers[str(entry.run.path)]) is not None]
    if len(pairs) < len(group):  # a mean over some of the seeds would stand beside a mean over all
        pairs = []
    agreements = [agreement_if_alike(entry.assessment.logits, reference.logits) for entry, reference in pairs]
    figures = replace(
        newest.figures,
        latency_ms={},
        test_images=len(newest.assessment.labels),
        test_top1=top1,
        test_ece=_mean([entry.assessment.result.ece for entry in group]),
        test_balanced_accuracy=_mean([entry.assessment.result.balanced_accuracy for entry in group]),
        test_macro_f1=_mean([entry.assessment.result.macro_f1 for entry in group]),
    )
    row = Row(
        name=newest.recipe.name,
        role=newest.recipe.role,
        run=str(newest.run.path),
        dataset=newest.recipe.data.title,
        objective=newest.recipe.objective.title,
        seeds=len(group),
        test_top1_std=std,
        delta_top1=_mean([entry.assessment.result.top1 - reference.top1 for entry, reference in pairs]),
        agreement=None if None in agreements else _mean([value for value in agreements if value is not None]),
        runtime=f"torch {newest.assessment.precision}",
        test_set=test_set,
        train_seeds=tuple(entry.recipe.train.seed for entry in by_seed),
        test_top1_each=tuple(entry.assessment.result.top1 for entry in by_seed),
    )
    return row.with_figures(figures)


def _mean(values: Sequence[float]) -> float | None:
    return mean_std(list(values))[0] if values else None
