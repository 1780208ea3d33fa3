"""From run folders and exported files to the table: accuracy, size, cost, latency, agreement, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.comparison.banks import bank_rows
from distill.comparison.devices import check_files, device_rows, read_reports
from distill.comparison.entries import (
    Entry,
    Tested,
    caution_notes,
    earlier_images_notes,
    few_images_notes,
    grouped,
    namesake_notes,
    seed_notes,
)
from distill.comparison.files import FileEntry, file_rows, open_files, parted, read_files, with_sources
from distill.comparison.paired_rows import beside_teachers, image_sets, other_images_notes
from distill.comparison.reference import Reference
from distill.comparison.selection import choose, naming
from distill.comparison.statistics import difference_of, with_statistics
from distill.comparison.teachers import find_teachers
from distill.devices import describe_device, library_versions, resolve_device, threads, using_threads
from distill.errors import DistillError, UsageError
from distill.evaluation.agreement import agreement
from distill.evaluation.latency import measure_latency
from distill.evaluation.spread import mean_std
from distill.evaluation.test_set import DataSets, assess
from distill.events import Note, Tell, silent
from distill.models.trained import Trained, load_trained
from distill.references import count_of, folder_of, listed, run_of
from distill.report.display import Shown
from distill.results.figures import Latency
from distill.results.roles import role_order
from distill.results.rows import Comparison, Row
from distill.runs import RunFolder, open_run
from distill.team.watch import watching

__all__ = ["Examined", "compare", "examine"]

_BUSY = 5  # times the median that the slowest tenth of the calls takes


@dataclass(frozen=True)
class Examined:
    """A comparison, and what it is made of: by a row's ``run``, what answered the test set, the newest last."""

    comparison: Comparison
    tested: Mapping[str, Sequence[Tested]]


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
    tell: Tell = silent,
) -> Comparison:
    """Compare runs: a name means all its seeds, a folder that run, nothing all that is below ``runs_dir``.

    Runs that differ in ``train.seed`` alone become one row with mean, spread and n. An exported file is a row under the
    run it was made from, which joins the table. Every model is timed in turn, round by round, within
    ``seconds_per_model``. Without references, a run that cannot be read is left out, with a note.

    Args:
        references: Runs: names, folders, or what training returned; files that ``export`` or ``quantize`` wrote; one
            alone or several. Without any, the newest finished run of each (recipe, data, start, seed); no trial of a
            sweep.
        threads_used: CPU threads while timing, of runs and files; one compares best between machines.
        teacher: The run that those are measured against which learned from none; it joins the table. None: the one
            teacher in the table, or the one that its students name.
        baseline: The row that all others are held against, with intervals and a paired test on the same test images:
            its name, its run or file, or a role that one row alone has.
        reports: Files that kits wrote on other machines (``device.json``), one or several: each is a row, marked as
            such, which nothing measured here is held against.

    Raises:
        RunError: There is nothing to compare.
        DistillError: A named run, or the data of one, cannot be read.
        UsageError: Something that is no run, no folder, no time, or no row.

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
    tell: Tell = silent,
) -> Examined:
    """As :func:`compare`, with the runs and answers that its rows are made of."""
    references = [run_of(each) for each in listed(references)]
    runs_dir = folder_of(runs_dir, "runs_dir")
    count_of(threads_used, "threads_used")
    if seconds_per_model <= 0:
        raise UsageError(f"seconds_per_model should be above 0, got {seconds_per_model!r}")
    target, data, elsewhere = resolve_device(device), DataSets(), read_reports(listed(reports))
    notes: list[str] = []
    read = partial(_entry, device=target, data=data, tell=tell)
    runs, paths = parted(references)
    opened = open_files(paths, threads=threads_used)  # what is no file of ours is told before minutes of measuring
    check_files(elsewhere, opened)
    entries = choose(runs, runs_dir, read, notes) if runs or not paths else []
    wanted = None
    if teacher is not None:
        run = open_run(run_of(teacher), runs_dir=runs_dir)
        wanted = run.path.resolve()
        if wanted not in {entry.run.path.resolve() for entry in entries}:
            entries.append(read(run))
    entries, sources = with_sources(opened, entries, runs_dir, read, target)
    files = read_files(opened, sources, data, lambda text: tell(Note(text)))
    groups = grouped(entries, notes)
    entries = [entry for group in groups.values() for entry in group]
    teachers = find_teachers(groups, runs_dir, target, data, notes, wanted=wanted)
    timings, used = dict[str, dict[int, Latency]](), threads()
    if latency:
        models = _loaded(groups, target, None if references else notes)
        notes += _file_notes(files, target)
        notes += _precision_notes("timed", ((each.recipe.name, each.precision) for each in models.values()))
        with using_threads(threads_used):
            used = threads()
            timings = _timed(models, files, target, seconds_per_model, tell)
    images = image_sets(groups | {key: [each] for key, each in files.items()}, data)
    by_key = {
        key: replace(_row(group, teachers, timings.get(key)), test_set=images[key]) for key, group in groups.items()
    }
    test_sets = {str(entry.run.path): images[key] for key, group in groups.items() for entry in group}
    shown_names = {row.name for row in by_key.values() if row.role == "teacher"}
    banks, answers = bank_rows(entries, teachers, shown=shown_names, test_sets=test_sets, data=data, notes=notes)
    rows = beside_teachers(by_key, banks, groups, teachers, notes)
    rows.sort(key=lambda row: (role_order(row.role), row.name))
    rows = file_rows(files, rows, groups, teachers=teachers, timings=timings, images=images, notes=notes)
    tested: dict[str, Sequence[Tested]] = {str(group[-1].run.path): group for group in groups.values()}
    tested |= {each.file.place: [each] for each in files.values()} | {run: [each] for run, each in answers.items()}
    rows = with_statistics(rows, tested, baseline=None if baseline is None else run_of(baseline), notes=notes)
    notes += _notes(groups, entries, files, rows, data)
    rows = device_rows(elsewhere, rows, {each.file.place: each.file.sha256 for each in files.values()}, notes)
    counts = [cell.n for cells in timings.values() for cell in cells.values()]
    shown = Shown(
        rows=tuple(rows),
        device=describe_device(target),
        threads=used,
        versions=library_versions(*(["onnxruntime"] if files else [])),
        notes=tuple(notes),
        latency_n=min(counts) if counts else None,
        difference=difference_of(tested),
    )
    return Examined(shown, tested)


def _entry(run: RunFolder, *, device: torch.device, data: DataSets, tell: Tell) -> Entry:
    tell(Note(f"test set: {run.path}"))
    return Entry(run, run.info, run.recipe(), assess(run, device=device, data=data), run.figures())


# Timing


def _loaded(groups: Mapping[str, list[Entry]], device: torch.device, notes: list[str] | None) -> dict[str, Trained]:
    """The newest model of each row; where there are notes to write, one that cannot be loaded is one."""
    loaded = {}
    for key, group in groups.items():
        try:
            loaded[key] = load_trained(group[-1].run, device=device)
        except (DistillError, OSError) as error:
            if notes is None:
                raise
            notes.append(f"not timed: {naming(group[-1].run, error)}")
    return loaded


def _timed(
    models: Mapping[str, Trained], files: Mapping[str, FileEntry], device: torch.device, seconds: float, tell: Tell
) -> dict[str, dict[int, Latency]]:
    """Runs on ``device``, files on the CPU, all in turn."""
    if not models and not files:
        return {}
    sides = {key: trained.normalize.input_size for key, trained in models.items()}
    sides |= {key: entry.file.image_size for key, entry in files.items()}
    forwards: dict[str, Callable[[Tensor], Any]] = {key: trained.to_time() for key, trained in models.items()}
    forwards |= {key: entry.file.to_time() for key, entry in files.items()}
    return measure_latency(
        forwards,
        {key: (3, side, side) for key, side in sides.items()},
        device=device,
        seconds_per_model=seconds,
        tell=tell,
    )


def _file_notes(files: Mapping[str, FileEntry], device: torch.device) -> list[str]:
    if not files:
        return []
    notes = ["files are timed from bytes to logits, runs from normalised images: scaling is in a file's time"]
    return notes + ([] if device.type == "cpu" else [f"files are timed on the CPU, runs on {device.type}"])


def _precision_notes(what: str, precisions: Iterable[tuple[str, str | None]]) -> list[str]:
    """Which models ran in less than fp32, as they do by default on a GPU; answers may be of an earlier day."""
    names: dict[str, dict[str, None]] = {}
    for name, precision in precisions:
        if precision not in (None, "fp32"):
            names.setdefault(precision, {})[name] = None
    return [f"{what} in {precision}: {', '.join(of)}" for precision, of in names.items()]


def _notes(
    groups: Mapping[str, list[Entry]],
    entries: Sequence[Entry],
    files: Mapping[str, FileEntry],
    rows: Sequence[Row],
    data: DataSets,
) -> list[str]:
    """What the reader must know of the answers, and of what they were given to."""
    answered: list[Tested] = [*entries, *files.values()]
    notes = _precision_notes("tested", ((each.recipe.name, each.assessment.precision) for each in entries))
    notes += (
        _busy_notes(rows) + few_images_notes(answered) + other_images_notes(rows) + earlier_images_notes(answered, data)
    )
    return notes + namesake_notes(groups) + seed_notes(groups) + caution_notes(groups)


def _busy_notes(rows: Sequence[Row]) -> list[str]:
    """Times that vary by far more than those of a machine which does nothing else."""
    shares = {
        row.name: row.latency_b1_p90_ms / row.latency_b1_ms
        for row in rows
        if row.latency_b1_ms and row.latency_b1_p90_ms and row.measured_on is None
    }
    worst = max(shares, key=lambda name: shares[name], default=None)
    if worst is None or shares[worst] < _BUSY:
        return []
    return [
        f"the machine was busy while it timed: one call in ten of {worst} took {shares[worst]:.0f} times the median or "
        "more; measure again when it is not"
    ]


# Rows


def _row(group: Sequence[Entry], teachers: Mapping[str, Reference | None], timing: Mapping[int, Latency] | None) -> Row:
    newest = group[-1]
    top1, std = mean_std([entry.assessment.result.top1 for entry in group])
    pairs = [(entry, reference) for entry in group if (reference := teachers[str(entry.run.path)]) is not None]
    if len(pairs) < len(group):  # a mean over some of the seeds would stand beside a mean over all
        pairs = []
    figures = replace(
        newest.figures,
        latency_ms=timing or {},
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
        objective=newest.recipe.objective.kind,
        seeds=len(group),
        test_top1_std=std,
        delta_top1=_mean([entry.assessment.result.top1 - reference.top1 for entry, reference in pairs]),
        agreement=_mean([value for pair in pairs if (value := _agreement(*pair)) is not None]),
        runtime=_runtime(newest),
    )
    return row.with_figures(figures)


def _runtime(entry: Entry) -> str:
    precision = entry.assessment.precision  # an older version did not keep it
    return "torch" if precision is None else f"torch {precision}"


def _agreement(entry: Entry, reference: Reference) -> float | None:
    ours = entry.assessment.logits
    if reference.logits is None or reference.logits.shape != ours.shape:
        return None
    return agreement(ours, reference.logits)


def _mean(values: Sequence[float]) -> float | None:
    return mean_std(list(values))[0] if values else None
