"""From run folders and exported files to the table: accuracy, size, cost, latency, agreement, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.comparison.banks import bank_rows
from distill.comparison.devices import check_files, device_rows, placed, read_reports
from distill.comparison.entries import (
    EvaluatedModel,
    but_for_the_teacher,
    caution_notes,
    earlier_images_notes,
    few_images_notes,
    namesake_notes,
    precision_notes,
    seed_notes,
    unequal_training_notes,
)
from distill.comparison.files import file_rows, open_files, parted
from distill.comparison.paired_rows import beside_teachers, other_images_notes
from distill.comparison.run_rows import run_row
from distill.comparison.statistics import (
    baseline_row,
    default_baseline_notes,
    default_baselines,
    difference_of,
    with_statistics,
)
from distill.comparison.subjects import Subjects, gather
from distill.comparison.timing import Timings, busy_notes, measure, with_latency
from distill.devices import describe_device, library_versions, resolve_device, threads, using_threads
from distill.errors import UsageError
from distill.evaluation.assess import DatasetCache
from distill.events import Tell, silent
from distill.references import count_of, folder_of, listed, run_of
from distill.report.display import Shown
from distill.results.roles import role_order
from distill.results.rows import Comparison, Row
from distill.runs.origin import made_again
from distill.team.watch import watching

__all__ = ["Examined", "compare", "examine"]


@dataclass(frozen=True)
class Examined:
    """A comparison, and what it is made of: by a row's ``run``, what answered the test set, the newest last."""

    comparison: Comparison
    tested: Mapping[str, Sequence[EvaluatedModel]]


def compare(
    references: Any = (),
    *,
    runs_dir: str | Path = Path("runs"),
    device: str | None = None,
    threads_used: int = 1,
    latency: bool = True,
    seconds_per_model: float = 4.0,
    teacher: str | Path | None = None,
    baseline: Any = None,
    reports: Any = (),
    check: Callable[[Sequence[Row]], object] | None = None,
    tell: Tell = silent,
) -> Comparison:
    """Compare runs: a name means all its seeds, a folder that run, no reference everything below ``runs_dir``.

    Runs that differ only in ``train.seed`` become one row with mean, spread and n. An exported file is a row under the
    run it was made from, which is added to the table. Models are timed in turn, round by round, each within
    ``seconds_per_model``. Without references, a run that cannot be read is left out, with a note.

    Args:
        references: Runs: names, folders, or what training returned; files that ``export`` or ``quantize`` wrote; one
            or several. Without any, the newest finished run of each (recipe, data, start, seed), excluding trials of
            sweeps.
        runs_dir: Where names of runs are looked up.
        device: For runs (``cpu``, ``cuda``, ``mps``); None: the best available. Files run on the CPU.
        latency: Also time the models, each for ``seconds_per_model`` seconds.
        threads_used: CPU threads while timing, of runs and files; 1 is the most comparable across machines.
        teacher: The run against which runs trained without a teacher are measured; it is added to the table. None: the
            only teacher in the table, or the one that its students name.
        baseline: The row that all others are compared with, with intervals and a paired test on the same test images:
            its name, its run or file, or a role that only one row has. None: the run without a teacher that was
            tested on the same images, if there is only one beside a student; of several the one with as many
            parameters.
        reports: Files that kits wrote on other machines (``device.json``), one or several: each is a row, marked as
            such, with which nothing measured here is compared.
        check: Called with all rows before timing, the longest step: an exception it raises ends the comparison.

    Raises:
        RunError: There is nothing to compare.
        DistillError: A named run, or the data of one, cannot be read.
        UsageError: An argument is not a valid run, folder, time or row.

    Example:
        >>> table = compare(["quickstart_scratch", "quickstart_student"], baseline="quickstart_scratch", latency=False)
        >>> [(row.name, row.params, row.test_images) for row in table.rows if row.role == "student"]
        [('quickstart_student', 1506, 359)]
        >>> table.rows[-1].baseline_verdict in ("better", "worse", "cannot tell")
        True
    """
    return examine(
        references,
        runs_dir=runs_dir,
        device=device,
        threads_used=threads_used,
        latency=latency,
        seconds_per_model=seconds_per_model,
        teacher=teacher,
        baseline=baseline,
        reports=reports,
        check=check,
        tell=tell,
    ).comparison


@watching()
def examine(
    references: Any = (),
    *,
    runs_dir: str | Path = Path("runs"),
    device: str | None = None,
    threads_used: int = 1,
    latency: bool = True,
    seconds_per_model: float = 4.0,
    teacher: str | Path | None = None,
    baseline: Any = None,
    reports: Any = (),
    check: Callable[[Sequence[Row]], object] | None = None,
    tell: Tell = silent,
) -> Examined:
    """As :func:`compare`, with the runs and answers that its rows are made of."""
    references = [run_of(each) for each in listed(references)]
    runs_dir = folder_of(runs_dir, "runs_dir")
    count_of(threads_used, "threads_used")
    if seconds_per_model <= 0:
        raise UsageError(f"seconds_per_model should be above 0, got {seconds_per_model!r}")
    target, data, found_elsewhere = resolve_device(device), DatasetCache(), read_reports(listed(reports))
    runs, paths = parted(references)
    opened = open_files(paths, threads=threads_used)  # what is no file of ours is told before minutes of measuring
    check_files(found_elsewhere, opened)

    notes: list[str] = []
    subjects = gather(
        runs,
        opened,
        runs_dir=runs_dir,
        teacher=None if teacher is None else run_of(teacher),
        device=target,
        data=data,
        notes=notes,
        tell=tell,
    )
    rows, tested = _untimed(subjects, data, notes)
    elsewhere = device_rows(found_elsewhere, rows)
    if baseline is None:
        teaching = _teaching(subjects) | {str(each.run.path) for each in subjects.entries if made_again(each.info)}
        twins = {str(each.run.path): but_for_the_teacher(each.recipe, each.info) for each in subjects.entries}
        baselines = default_baselines(rows, teaching, twins)
        notes += default_baseline_notes(rows, baselines, teaching)
    else:
        baselines = dict.fromkeys([row.run for row in rows], baseline_row(run_of(baseline), rows).run)
    if check is not None:
        check([*rows, *elsewhere])

    used, timings = threads(), Timings()
    if latency:
        with using_threads(threads_used):
            used = threads()
            timings = measure(
                subjects,
                target,
                seconds_per_model=seconds_per_model,
                is_named=bool(references),
                notes=notes,
                tell=tell,
            )
        rows = with_latency(rows, timings)
    counts = [cell.n for cells in timings.values() for cell in cells.values()]
    rows = with_statistics(rows, tested, baselines=baselines, notes=notes, named=baseline is not None)
    notes += _notes(subjects, rows, data)
    rows = placed(elsewhere, rows, {each.file.place: each.file.sha256 for each in subjects.files.values()}, notes)
    shown = Shown(
        rows=tuple(rows),
        device=describe_device(target),
        threads=used,
        versions=library_versions(*(["onnxruntime"] if subjects.files else [])),
        notes=tuple(dict.fromkeys(notes)),
        latency_n=min(counts, default=None),
        difference=difference_of(tested),
    )
    return Examined(shown, tested)


def _teaching(subjects: Subjects) -> set[str]:
    """The names of all that taught a run of the table; of several teachers together each one's."""
    told = (str((entry.run.info.teacher or {}).get("name") or "") for entry in subjects.entries)
    return {name for each in told for name in each.split(" + ")}


def _untimed(
    subjects: Subjects, data: DatasetCache, notes: list[str]
) -> tuple[list[Row], dict[str, Sequence[EvaluatedModel]]]:
    """The rows of runs, banks and files, in their order, and what answered the test set, by a row's ``run``."""
    groups, teachers, images = subjects.groups, subjects.teachers, subjects.images
    by_key = {key: run_row(group, teachers, test_set=images[key]) for key, group in groups.items()}
    banks, answers = bank_rows(
        subjects.entries,
        teachers,
        shown={row.name for row in by_key.values() if row.role == "teacher"},
        test_sets={str(entry.run.path): images[key] for key, group in groups.items() for entry in group},
        data=data,
        notes=notes,
    )
    rows = beside_teachers(by_key, banks, groups, teachers, notes)
    rows.sort(key=lambda row: (row.dataset, role_order(row.role), row.name))
    rows = file_rows(subjects.files, rows, groups, teachers=teachers, images=images, notes=notes)
    return rows, subjects.tested | {run: [each] for run, each in answers.items()}


def _notes(subjects: Subjects, rows: Sequence[Row], data: DatasetCache) -> list[str]:
    """What the reader must know of the answers, and of what they were given to."""
    groups, entries = subjects.groups, subjects.entries
    answered: list[EvaluatedModel] = [*entries, *subjects.files.values()]
    return [
        *precision_notes("tested", ((each.recipe.name, each.assessment.precision) for each in entries)),
        *busy_notes(rows),
        *few_images_notes(answered),
        *other_images_notes(rows),
        *earlier_images_notes(answered, data),
        *namesake_notes(groups),
        *seed_notes(groups),
        *caution_notes(groups),
        *unequal_training_notes(rows, subjects.tested),
    ]
