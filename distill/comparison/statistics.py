"""How sure a table is: intervals of accuracies, differences from a row of choice, and which rows no other beats."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from distill.comparison.entries import EvaluatedModel
from distill.errors import UsageError
from distill.evaluation.correct import correct
from distill.evaluation.holm import holm
from distill.evaluation.statistics import (
    SeedOutcomes,
    compare_runs,
    front,
    mean_interval,
    share_interval,
)
from distill.recipe.objectives import KINDS_WITHOUT_TEACHER
from distill.results.rows import Difference, Row, row_labels
from distill.text import several

__all__ = ["baseline_row", "default_baseline_notes", "default_baselines", "difference_of", "with_statistics"]


def with_statistics(
    rows: Sequence[Row],
    tested: Mapping[str, Sequence[EvaluatedModel]],
    *,
    baselines: Mapping[str, str],
    notes: list[str],
    named: bool = True,
) -> list[Row]:
    """Every row with its interval, its place on the front, and its difference from its baseline's row.

    Args:
        tested: What answered the test set, by the row's ``run``; a bank may not hold its teacher's answers.
        baselines: By a row's ``run`` that of the row that it is held against.
        notes: Told which rows are not held against it, and what an interval leaves out.
        named: Whether somebody named it; else nothing is said of rows that are not held against it.
    """
    answers = {run: _answers(group) for run, group in tested.items()}
    rows = [_with_interval(row, answers.get(row.run)) for row in rows]
    rows = _with_front(rows)
    labels, by_run = dict(zip((row.run for row in rows), row_labels(rows), strict=True)), {row.run: row for row in rows}
    held = [
        _against(row, by_run[baselines[row.run]], answers, labels, notes, named=named) if row.run in baselines else row
        for row in rows
    ]
    notes += _single_run_notes(held, labels)
    return _with_holm(held)


def _answers(group: Sequence[EvaluatedModel]) -> SeedOutcomes:
    right = [correct(each.assessment.logits, each.assessment.labels) for each in group]
    return SeedOutcomes(tuple(each.recipe.train.seed for each in group), np.stack(right))


def _with_interval(row: Row, answers: SeedOutcomes | None) -> Row:
    """Wilson's of one run's images; of several runs Student's of their mean, where they are not all as accurate."""
    if answers is None:
        if row.test_top1 is None or not row.test_images:
            return row
        interval = share_interval(round(row.test_top1 * row.test_images), row.test_images)
    elif len(set(right := answers.right.sum(axis=1).tolist())) == 1:  # of few seeds it happens, and is no certainty
        interval = share_interval(right[0], answers.right.shape[1])
    else:
        several_seeds = mean_interval(answers.right.mean(axis=1).tolist())
        assert several_seeds is not None, "two or more have a spread"
        interval = several_seeds
    return replace(row, test_top1_low=max(interval.low, 0.0), test_top1_high=min(interval.high, 1.0))


def _with_front(rows: Sequence[Row]) -> list[Row]:
    """Of accuracy and latency for one image, among rows that were tested on the same images."""
    marks: dict[int, bool] = {}
    for name in {row.test_set for row in rows if row.test_set is not None}:
        places = [place for place, row in enumerate(rows) if row.test_set == name]
        points = [
            None if row.test_top1 is None or row.latency_b1_ms is None else (row.test_top1, row.latency_b1_ms)
            for row in (rows[place] for place in places)
        ]
        marks |= dict(zip(places, front(points), strict=True))
    return [
        replace(row, on_front=None if row.latency_b1_ms is None else marks.get(place)) for place, row in enumerate(rows)
    ]


# Against one row


def baseline_row(baseline: str, rows: Sequence[Row]) -> Row:
    """The row that is meant by its name, its run's folder or file (or how its path ends), or a role that it alone has.

    Raises:
        UsageError: None is, or several are.
    """
    parts = Path(baseline).parts
    ways = (
        [row for row in rows if row.name == baseline],
        [row for row in rows if Path(row.run).resolve() == Path(baseline).resolve()],
        [row for row in rows if Path(row.run).parts[-len(parts) :] == parts],  # NAME/001, as runs are named
        [row for row in rows if row.role == baseline],
    )
    meant = next((found for found in ways if found), [])
    if len(meant) == 1:
        return meant[0]
    names = several([row.run if meant else row.name for row in meant or rows], 6)
    if meant:
        raise UsageError(f"--baseline {baseline} means {len(meant)} rows", hint=f"name one by its folder: {names}")
    seeds = next((row.name for row in rows if row.seeds > 1 and row.name in parts[-2:-1]), None)
    raise UsageError(
        f"--baseline {baseline} is no row of this table",
        hint=f"its seeds are one row here: --baseline {seeds}"
        if seeds
        else f"there are {names}; name its run among those to compare",
    )


def default_baselines(
    rows: Sequence[Row], teaching: Collection[str] = (), settings: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Where no row is named: by a row's ``run``, that of the run without a teacher that it is held against.

    On each test set that a student answered: its only such run, or, of several, the one with as many parameters; of a
    file, as many as its run has; of several of these the one that has the student's settings in all but the teaching. A
    run that teaches a student of the table is none.

    Args:
        teaching: The names of all that teach, those among several too, which are no row's ``teacher``; and the ``run``
            of those of which it is not known how they learned.
        settings: By a row's ``run`` all but its teaching, its name and its seed; equal for twins.
    """
    found: dict[str, str] = {}
    for test_set in {row.test_set for row in rows if row.role == "student" and row.test_set is not None}:
        beside = {row.run: row for row in rows if row.test_set == test_set}
        alone = _alone(beside.values(), teaching)
        meant = {run: _meant(row, alone, beside, settings or {}) for run, row in beside.items()}
        held = {run: only[0].run for run, only in meant.items() if len(only) == 1}
        used = {held.get(student.run) for student in beside.values() if _is_taught(student)}
        found |= {run: baseline for run, baseline in held.items() if baseline in used}
    return found


def _alone(rows: Collection[Row], teaching: Collection[str]) -> list[Row]:
    """The runs that learned without a teacher, and are none."""
    teachers = {row.teacher for row in rows if _is_taught(row)}
    runs = [row for row in rows if row.role != "teacher" and row.source_run is None and _learned_alone(row)]
    return [row for row in runs if row.run not in teachers and not {row.name, row.run} & set(teaching)]


def default_baseline_notes(
    rows: Sequence[Row], baselines: Mapping[str, str], teaching: Collection[str] = ()
) -> list[str]:
    """What :func:`default_baselines` holds rows against, and why it holds a taught student against nothing.

    Args:
        baselines: As returned there, of these rows.
        teaching: As there.
    """
    held = sorted(row.name for row in rows if row.run in baselines.values())
    notes = [f"against {several(held, 4)}, trained without a teacher; --baseline names another row"] if held else []
    unjudged: dict[str, list[str]] = {}
    by_run = {row.run: row for row in rows}
    for row in rows:
        teacher = by_run.get(row.teacher or "")
        if teacher is not None and _learned_alone(teacher) and teacher.params == row.params:
            continue  # its teacher is its network from labels alone: the difference from it stands in the table
        if row.role == "student" and row.test_set is not None and _is_taught(row) and row.run not in baselines:
            alone = _alone([each for each in rows if each.test_set == row.test_set], teaching)
            unjudged.setdefault(_no_baseline(alone), []).append(row.name)
    return notes + [f"what a teacher is worth to {several(names, 4)}: {why}" for why, names in unjudged.items()]


def _no_baseline(alone: Sequence[Row]) -> str:
    if alone:
        return f"several learned without one: {several([row.name for row in alone], 4)}; --baseline names one"
    return "not known without a run of its network from labels alone (objective: {kind: supervised}, and no teacher)"


def _is_taught(row: Row) -> bool:
    """A run, not a file of one, that learned from a teacher."""
    return row.role != "teacher" and row.source_run is None and not _learned_alone(row)


def _learned_alone(row: Row) -> bool:
    """Without a teacher; a student's role has a budget, and need not have one."""
    return row.role == "baseline" or row.objective.startswith(KINDS_WITHOUT_TEACHER)


def _meant(row: Row, alone: Sequence[Row], beside: Mapping[str, Row], settings: Mapping[str, str]) -> Sequence[Row]:
    if len(alone) == 1:
        return alone
    network = beside.get(row.source_run or "", row)
    alike = [each for each in alone if each.params == network.params]
    own = settings.get(network.run)
    twins = [each for each in alike if own is not None and settings.get(each.run) == own]
    return twins if len(twins) == 1 else alike


def _against(
    row: Row,
    baseline: Row,
    answers: Mapping[str, SeedOutcomes],
    labels: Mapping[str, str],
    notes: list[str],
    *,
    named: bool,
) -> Row:
    if row.run == baseline.run:
        return replace(row, baseline=baseline.run)
    pair = _pair(row, baseline, answers)
    if isinstance(pair, str):
        if named:
            notes.append(f"{labels[row.run]} is not held against {labels[baseline.run]}: {pair}")
        return row
    ours, theirs = pair
    test = compare_runs(ours, theirs)
    if test.method == "paired seeds" and test.n < max(len(ours.seeds), len(theirs.seeds)):
        notes.append(f"{labels[row.run]} against {labels[baseline.run]}: over the {test.n} seeds that both have")
    return replace(
        row,
        baseline=baseline.run,
        baseline_difference=test.difference.estimate,
        baseline_low=test.difference.low,
        baseline_high=test.difference.high,
        baseline_p=test.p_value,
        baseline_method=test.method,
        baseline_n=test.n,
        baseline_verdict=test.verdict,
        baseline_needed=test.needed,
    )


def _pair(row: Row, other: Row, answers: Mapping[str, SeedOutcomes]) -> tuple[SeedOutcomes, SeedOutcomes] | str:
    """Both rows' answers to the same images, or why there are none."""
    ours, theirs = answers.get(row.run), answers.get(other.run)
    if ours is None or theirs is None:
        return "its answers are not here"
    if not row.same_test_images(other) or ours.right.shape[1] != theirs.right.shape[1]:
        return "it was tested on other images"
    return ours, theirs


def difference_of(tested: Mapping[str, Sequence[EvaluatedModel]]) -> Callable[[Row, Row], Difference | None]:
    """What tells the difference of two rows of a table, by the tests of :func:`with_statistics`.

    Args:
        tested: As there.
    """
    answers: dict[str, SeedOutcomes] = {}

    def difference(row: Row, other: Row) -> Difference | None:
        answers.update((run, _answers(group)) for run, group in tested.items() if run not in answers)
        pair = _pair(row, other, answers)
        if isinstance(pair, str):
            return None
        test = compare_runs(*pair)
        return Difference(test.difference.estimate, test.difference.low, test.difference.high, test.method, test.n)

    return difference


def _with_holm(rows: Sequence[Row]) -> list[Row]:
    """Every method with its p-value among all that are held against the same row."""
    found: dict[str, float] = {}
    for baseline in {row.baseline for row in rows if row.baseline_p is not None}:
        methods = {
            row.run: row.baseline_p
            for row in rows
            if row.baseline == baseline and row.baseline_p is not None and row.is_method
        }
        found |= dict(zip(methods, holm(list(methods.values())), strict=True))
    return [replace(row, baseline_p_holm=found.get(row.run)) for row in rows]


def _single_run_notes(rows: Sequence[Row], labels: Mapping[str, str]) -> list[str]:
    """Whose intervals leave out a spread over seeds that nobody knows, by the row that they are held against."""
    seeds = {row.run: row.seeds for row in rows}
    notes = []
    for baseline in dict.fromkeys(row.baseline for row in rows if row.baseline_method == "one run"):
        assert baseline is not None, "held against it"
        theirs = [labels[row.run] for row in rows if row.baseline == baseline and row.baseline_method == "one run"]
        names, other = several(theirs, 6), labels[baseline]
        if seeds[baseline] == 1:
            single = f"{other} is one run"
        else:
            single = f"{names} is one run" if len(theirs) == 1 else "each is one run"
        notes.append(f"{names} against {other}: {single}, whose spread over seeds is not in the interval")
    return notes
