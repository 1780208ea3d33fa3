"""Exported files of a comparison: each is measured as the file it is, and stands under the run that it came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from distill.comparison.entries import EvaluatedRun, identity
from distill.comparison.paired_rows import beside
from distill.comparison.reference import ReferenceTeacher
from distill.errors import RunError
from distill.evaluation.agreement import agreement_if_alike
from distill.evaluation.assess import DatasetCache, assess
from distill.evaluation.assessment import Assessment
from distill.events import Tell
from distill.models.onnx_open import OnnxClassifier, is_exported_file, open_onnx
from distill.recipe import Recipe, parse_recipe
from distill.results.roles import role_order
from distill.results.rows import Row
from distill.runs import RunFolder, list_runs
from distill.teaching.identity import read_identity

__all__ = ["EvaluatedFile", "file_rows", "open_files", "parted", "read_files", "source_run", "with_sources"]


@dataclass(frozen=True)
class EvaluatedFile:
    """An exported file and its answers on the test set.

    Attributes:
        recipe: The one inside the file.
        source: The run that it was made from; None where that is not here.
    """

    file: OnnxClassifier
    recipe: Recipe
    assessment: Assessment
    source: EvaluatedRun | None

    @property
    def key(self) -> str:
        """Which no run's key is."""
        return f"file {self.file.path.resolve()}"


def parted(references: Sequence[str]) -> tuple[list[str], list[str]]:
    """Runs, and exported files."""
    files = [each for each in references if is_exported_file(each)]
    return [each for each in references if each not in files], files


def open_files(references: Sequence[str], *, threads: int) -> list[OnnxClassifier]:
    """Open each file once.

    Raises:
        UsageError, RunError: As :func:`distill.models.onnx_open.open_onnx`.
    """
    paths = {Path(each).resolve(): each for each in references}
    return [open_onnx(each, threads=threads) for each in paths.values()]


def with_sources(
    files: Sequence[OnnxClassifier],
    entries: Sequence[EvaluatedRun],
    runs_dir: Path,
    read: Callable[[RunFolder], EvaluatedRun],
    device: torch.device,
) -> tuple[list[EvaluatedRun], dict[Path, EvaluatedRun]]:
    """The table's runs, with those among them that files came from, and which run each file came from.

    A file's run joins the table where neither it nor another seed of it is there: a row of seeds that were named stays
    one of those.

    Args:
        read: Makes an entry of a run.
    """
    entries, sources = list(entries), dict[Path, EvaluatedRun]()
    for file in files:
        named = [entry.run for entry in entries if entry.recipe.name == file.about.name]
        run = source_run(file, named, runs_dir, device)
        if run is None:
            continue
        known = {entry.run.path.resolve(): entry for entry in [*entries, *sources.values()]}
        entry = known.get(run.path.resolve()) or read(run)
        if all(identity(each.recipe, each.info) != identity(entry.recipe, entry.info) for each in entries):
            entries.append(entry)
        sources[file.path] = entry
    return entries, sources


def source_run(
    file: OnnxClassifier, named: Sequence[RunFolder], runs_dir: Path, device: torch.device
) -> RunFolder | None:
    """The run of a file's weights: one of those that were named first, then the newest; None where none is here."""
    others = [run for run in list_runs(runs_dir) if run.name == file.about.name and run.status == "finished"]
    for run in [*reversed(named), *reversed(others)]:
        with suppress(RunError):  # a damaged run is nobody's source
            if read_identity(run, device=device).weights == file.about.weights_sha256:
                return run
    return None


def read_files(
    files: Sequence[OnnxClassifier], sources: Mapping[Path, EvaluatedRun], data: DatasetCache, tell: Tell
) -> dict[str, EvaluatedFile]:
    """Every file with its answers, by key; each is asked about the test set once, ever."""
    found = {}
    for file in files:
        recipe = parse_recipe(file.about.recipe, source=f"{file.place} (the recipe in it)")
        entry = EvaluatedFile(file, recipe, assess(file, data=data, tell=tell), sources.get(file.path))
        found[entry.key] = entry
    return found


def file_rows(
    files: Mapping[str, EvaluatedFile],
    rows: Sequence[Row],
    groups: Mapping[str, Sequence[EvaluatedRun]],
    *,
    teachers: Mapping[str, ReferenceTeacher | None],
    images: Mapping[str, str | None],
    notes: list[str],
) -> list[Row]:
    """All rows in their order, each file's under its run's; not timed.

    Args:
        rows: Of runs and banks.
        groups: The runs of a row, by its key.
        teachers: By the paths of runs.
        images: A name for the test images, by key.
    """
    by_run = {row.run: row for row in rows}
    below: dict[str, list[Row]] = {}
    for key, entry in files.items():
        home = _home(entry, groups, notes)
        reference = None if entry.source is None else teachers.get(str(entry.source.run.path))
        row = replace(_row(entry, reference), test_set=images[key])
        teacher = by_run.get(by_run[home].teacher or "") if home in by_run else None
        below.setdefault(home, []).append(row if teacher is None else beside(row, teacher))
    ordered = []
    for each in rows:
        ordered += [each, *sorted(below.pop(each.run, []), key=_order)]
    return ordered + sorted((row for rest in below.values() for row in rest), key=_order)


def _order(row: Row) -> tuple[int, str, str]:
    return role_order(row.role), row.runtime or "", row.name


def _home(entry: EvaluatedFile, groups: Mapping[str, Sequence[EvaluatedRun]], notes: list[str]) -> str:
    """The run that stands for the row under which the file's stands; empty where there is none."""
    source, place = entry.source, entry.file.place
    if source is None:
        notes.append(f"{place}: the run it came from ({entry.file.about.name}) is not here: it is compared with none")
        return ""
    group = groups.get(identity(source.recipe, source.info), ())
    if group and all(each.run.path.resolve() != source.run.path.resolve() for each in group):
        notes.append(f"{place} came from {source.run.path}, a run of this recipe that is not in the row above it")
    return str(group[-1].run.path) if group else ""


def _row(entry: EvaluatedFile, teacher: ReferenceTeacher | None) -> Row:
    about, logits, source = entry.file.about, entry.assessment.logits, entry.source
    top1 = entry.assessment.result.top1
    figures = replace(
        entry.assessment.figures,
        params=about.params,
        gmacs=about.gmacs,
        size_mb=entry.file.size_bytes / 1e6,
        latency_ms={},
    )
    row = Row(
        name=entry.file.name,
        role=about.role,
        run=entry.file.place,
        dataset=entry.recipe.data.title,
        objective=entry.recipe.objective.title,
        seeds=1,
        delta_top1=None if teacher is None else top1 - teacher.top1,
        agreement=None if teacher is None else agreement_if_alike(logits, teacher.logits),
        runtime=entry.file.runtime,
        source_run=None if source is None else str(source.run.path),
        agreement_source=None if source is None else _source_agreement(entry.assessment, source.assessment),
    )
    return row.with_figures(figures)


def _source_agreement(ours: Assessment, theirs: Assessment) -> float | None:
    return agreement_if_alike(ours.logits, theirs.logits) if ours.content == theirs.content else None
