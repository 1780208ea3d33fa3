"""``distill report --html``: runs and files measured side by side, and one HTML file that says what came of them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from distill.comparison import Examined, examine
from distill.comparison.entries import EvaluatedModel, EvaluatedRun
from distill.comparison.statistics import with_statistics
from distill.compression.candidate import CompressionCandidate
from distill.devices import library_versions
from distill.errors import DistillError, RunError, UsageError
from distill.files import read_json, refuse_to_replace, write_export
from distill.pipeline.context import Options
from distill.pipeline.lost import hardest, images_asked, pair_of
from distill.pipeline.members import differences, members, repeating_before
from distill.references import listed, run_of
from distill.report.page.content import Chain, Hard, Member, Page, Pair, Sentence
from distill.report.page.render import GENERATOR, render_page
from distill.report.page.words import accuracy, against, evidence, lead, shipped
from distill.results.rows import Row
from distill.runs.lock import utc_now
from distill.runs.origin import ancestors
from distill.team.watch import watching
from distill.text import first_line

__all__ = ["check_page_name", "gather_page", "write_page"]

_Tested = Mapping[str, Sequence[EvaluatedModel]]


@watching()
def write_page(
    references: Any = (),
    *,
    out: str | Path,
    title: str | None = None,
    latency: bool = True,
    teacher: str | Path | None = None,
    baseline: Any = None,
    overwrite: bool = False,
    options: Options | None = None,
) -> Path:
    """Measure runs and files as ``compare`` does, and write the results as one self-contained HTML file.

    Args:
        references: As for ``compare``: names, folders, exported files; without any, the newest of each recipe and seed.
        out: The file, which ends in ``.html``.
        title: Its heading; None: the names of the data sets.
        latency: Also time the models.
        teacher, baseline: As for ``compare``; without a baseline, the student is compared with the one trained without
            a teacher, where there is one such row.
        overwrite: Replace a file that distill did not make.

    Returns:
        The file.

    Raises:
        UsageError: The file's name is not valid for a page, or belongs to something else.
        DistillError: As for ``compare``.

    Example:
        >>> write_page(out="report.html", latency=False).name
        'report.html'
    """
    options, out = options or Options(), Path(out)
    check_page_name(out, overwrite=overwrite)
    named = [run_of(each) for each in listed(references)]
    examined = examine(
        named,
        runs_dir=options.runs_dir,
        device=options.device,
        threads_used=options.timing_threads or 1,
        latency=latency,
        teacher=teacher,
        baseline=baseline,
        tell=options.tell,
    )
    command = options.command or ("distill", "report", "--html", str(out), *named)
    page = gather_page(examined, title=title, command=shlex.join(command), runs_dir=options.runs_dir)
    write_export(out, render_page(page).encode("utf-8", "backslashreplace"))
    return out


def check_page_name(path: Path, *, overwrite: bool = False) -> None:
    """Refuse a name that no page can have, or that belongs to a file which distill did not make.

    Raises:
        UsageError: It is refused; the hint says what to do.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder", hint=f"name a file: {path / 'report.html'}")
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{path}: a page is .html", hint=f"for example {path.with_suffix('.html')}")
    mark = f'content="{GENERATOR}"'.encode()
    refuse_to_replace(path, ours=lambda there: mark in there, why="distill did not make it", overwrite=overwrite)


# The content


@dataclass
class _Draft:
    """What is known so far, and what is not, and why."""

    rows: list[Row]
    tested: _Tested
    runs_dir: Path
    missing: dict[str, str] = field(default_factory=dict)


def gather_page(examined: Examined, *, title: str | None, command: str, runs_dir: Path) -> Page:
    """All that the page says, from a comparison and the folders of its runs."""
    comparison, tested = examined.comparison, examined.tested
    notes: list[str] = []
    student = _headline(comparison.rows, tested, notes)
    rows = list(comparison.rows)
    shown = members(rows, tested)
    labels = {member.row.run: member.label for member in shown}
    draft = _Draft(rows, tested, runs_dir)
    teacher = _teacher_of(draft, student)
    pair = _pair(draft, teacher, student, labels)
    steps = _steps(draft, teacher, student, shown)
    page = Page(
        title=title or _title(rows),
        made=utc_now()[:16].replace("T", " ") + " UTC",
        version=library_versions()["distill"],
        command=command,
        comparison=replace(comparison, notes=(*comparison.notes, *notes)),
        members=shown,
        lead=_data_set_prefix(student, rows) + _lead(student, teacher, labels),
        sentences=(*_sentences(draft, teacher, student, labels), *_other_leads(draft, student, labels)),
        headline=None if student is None else labels[student.run],
        pair=pair,
        hardest=() if student is None else _hardest(draft, teacher if pair else None, student),
        steps=steps,
        chains=_chains(draft),
        differences=differences(shown),
        before=repeating_before(tested, runs_dir),
        missing=draft.missing,
    )
    return _explained(page)


def _explained(page: Page) -> Page:
    """The page, with a word on each part that it lacks."""
    missing = dict[str, str]()
    if all(member.row.latency_b1_ms is None for member in page.members):
        missing["latency"] = "the models were not timed"
    if not any(member.curves for member in page.members):
        missing["curves"] = "no run here kept what it measured by epoch"
    if not any(member.reliability for member in page.members):
        missing["calibration"] = "no answers to test images are here"
    if not any(member.corruptions for member in page.members):
        missing["corrupted"] = "nobody asked (distill evaluate RUNS --corruptions)"
    if page.headline is None:
        missing |= {"pair": "there is no student here", "hardest": "there is no student here"}
    return replace(page, missing={**missing, **page.missing})


def _title(rows: Sequence[Row]) -> str:
    sets = dict.fromkeys(row.dataset for row in rows)
    return f"Distillation on {', '.join(sets)}"


def _is_run(row: Row, tested: _Tested) -> bool:
    return bool(tested.get(row.run)) and isinstance(tested[row.run][-1], EvaluatedRun)


def _run_folders(group: Sequence[EvaluatedModel]) -> set[Path]:
    """Of those that are runs."""
    return {each.run.path.resolve() for each in group if isinstance(each, EvaluatedRun)}


def _was_taught(row: Row, tested: _Tested) -> bool:
    """Whether a run learned from a teacher; beside labels alone a table may name one, to be held against."""
    newest = tested[row.run][-1]
    return isinstance(newest, EvaluatedRun) and (newest.recipe.teacher is not None or bool(newest.teacher))


def _headline(rows: Sequence[Row], tested: _Tested, notes: list[str]) -> Row | None:
    """What the page is about: the student that was taught, if possible with its teacher here.

    Of several it is the most accurate on validation images: the best by test images is flattered by them. Where not all
    were validated those decide, which a note says. Of equals it is the smallest; where nothing was taught, one that
    learned from labels alone.
    """
    students = [row for row in rows if row.role == "student" and _is_run(row, tested)]
    taught = [row for row in students if _was_taught(row, tested)]
    beside = [row for row in taught if row.teacher is not None]
    found = beside or taught or students
    validated = {row.run: _validated(tested[row.run]) for row in found}
    by_test = len(found) > 1 and None in validated.values()
    if by_test:
        notes.append(
            f"not all of {len(found)} students were validated: the verdict is about the most accurate of them on the "
            "test images, which is luck in part"
        )
    scores = {row.run: (row.test_top1 if by_test else validated[row.run]) or 0.0 for row in found}
    return max(found, key=lambda row: (scores[row.run], -(row.params or 0)), default=None)


def _teacher_of(draft: _Draft, student: Row | None) -> Row | None:
    """The row of a student's teacher, where it learned from one that is here."""
    if student is None or not _was_taught(student, draft.tested):
        return None
    return next((row for row in draft.rows if row.run == student.teacher), None)


def _lead(student: Row | None, teacher: Row | None, labels: Mapping[str, str]) -> str:
    if student is None:
        return lead(None, None, None, None, list(labels.values()))
    name, baseline = labels[student.run], labels.get(student.baseline or "")
    is_own = student.baseline == student.run
    told = None if is_own or baseline is None else against(student, name, baseline)
    return lead(name, student, teacher, told, list(labels.values()))


def _data_set_prefix(student: Row | None, rows: Sequence[Row]) -> str:
    """Of which data set a verdict is, on a page of several."""
    several_sets = len({row.dataset for row in rows}) > 1
    return f"On {student.dataset}: " if student is not None and several_sets else ""


def _other_leads(draft: _Draft, headline: Row | None, labels: Mapping[str, str]) -> list[Sentence]:
    """The verdicts on the data sets that the page's own verdict is not about."""
    told: list[Sentence] = []
    for dataset in dict.fromkeys(row.dataset for row in draft.rows):
        notes: list[str] = []
        student = _headline([row for row in draft.rows if row.dataset == dataset], draft.tested, notes)
        if student is not None and headline is not None and dataset != headline.dataset:
            verdict = _lead(student, _teacher_of(draft, student), labels)
            told.append(Sentence(_data_set_prefix(student, draft.rows) + verdict, "; ".join(notes)))
    return told


def _validated(group: Sequence[EvaluatedModel]) -> float | None:
    """Mean validation top-1 of a row's runs; None where one was not validated."""
    values = [each.figures.val_top1 for each in group if isinstance(each, EvaluatedRun)]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _against_teacher(draft: _Draft, teacher: Row, student: Row) -> Row | None:
    """The student's row, held against its teacher's."""
    if not draft.tested.get(teacher.run):
        return None
    held = with_statistics(draft.rows, draft.tested, baselines={student.run: teacher.run}, notes=[])
    return next(row for row in held if row.run == student.run)


def _sentences(
    draft: _Draft, teacher: Row | None, student: Row | None, labels: Mapping[str, str]
) -> tuple[Sentence, ...]:
    if student is None:
        return ()
    told: list[Sentence | None] = []
    if teacher is not None:
        told.append(accuracy(student, teacher))
    if student.baseline is not None and student.baseline != (teacher.run if teacher else None):
        told.append(evidence(student, labels.get(student.baseline, student.baseline)))
    if teacher is not None and (held := _against_teacher(draft, teacher, student)) is not None:
        told.append(evidence(held, f"its teacher, {labels[teacher.run]}"))
    told += [shipped(row, labels[row.run]) for row in _files_of(draft, student)]
    return tuple(each for each in told if each is not None)


def _files_of(draft: _Draft, student: Row) -> list[Row]:
    own = _run_folders(draft.tested[student.run])
    return [row for row in draft.rows if row.source_run is not None and Path(row.source_run).resolve() in own]


# Parts


def _pair(draft: _Draft, teacher: Row | None, student: Row | None, labels: Mapping[str, str]) -> Pair | None:
    if student is None:
        return None
    if teacher is None or not draft.tested.get(teacher.run):
        draft.missing["pair"] = "its teacher's answers are not in this table"
        return None
    groups = draft.tested[teacher.run], draft.tested[student.run]
    pair = pair_of(*groups, names=(labels[teacher.run], labels[student.run]))
    if pair is None:
        draft.missing["pair"] = "teacher and student were tested on other images"
    return pair


def _hardest(draft: _Draft, teacher: Row | None, student: Row) -> tuple[Hard, ...]:
    group = draft.tested[student.run]
    try:
        images = images_asked(group[-1])
    except (DistillError, OSError) as error:
        draft.missing["hardest"] = first_line(error)
        return ()
    return hardest(group, draft.tested[teacher.run] if teacher else (), images)


def _steps(draft: _Draft, teacher: Row | None, student: Row | None, shown: Sequence[Member]) -> tuple[str, ...]:
    """Teacher, student, what was cut from it, and the files of them: each smaller than the one before, it is hoped."""
    if student is None:
        draft.missing["steps"] = "there is no student here"
        return ()
    runs = [student] + [row for row in draft.rows if _is_cut_from(row, student, draft)]
    chosen = [*([teacher] if teacher else []), *runs, *(file for run in runs for file in _files_of(draft, run))]
    if len(chosen) < 2:
        draft.missing["steps"] = "there is neither a teacher nor a smaller network nor a file of it in this table"
        return ()
    places = {row.run: place for place, row in enumerate(chosen)}
    members_of = sorted((each for each in shown if each.row.run in places), key=lambda each: places[each.row.run])
    return tuple(each.label for each in members_of)


def _is_cut_from(row: Row, student: Row, draft: _Draft) -> bool:
    if row.run == student.run or not _is_run(row, draft.tested):
        return False
    own = _run_folders(draft.tested[student.run])
    info = draft.tested[row.run][-1]
    assert isinstance(info, EvaluatedRun)
    return any(each.path.resolve() in own for each in ancestors(info.run, draft.runs_dir)[0])


def _chains(draft: _Draft) -> tuple[Chain, ...]:
    """The chains beside the folder of runs that began with a run of this page."""
    runs = _run_folders([each for group in draft.tested.values() for each in group])
    found = []
    for path in sorted((draft.runs_dir.parent / "compressed").glob("*/result.json")):
        with suppress(RunError, KeyError, TypeError, ValueError, AttributeError):  # a damaged chain is not told
            chain = _chain(path)
            if Path(chain.run).resolve() in runs:
                found.append(chain)
    if not found:
        draft.missing["chains"] = "no chain began with a run of this page (distill compress RUN makes one)"
    return tuple(found)


def _chain(path: Path) -> Chain:
    document = read_json(path)
    tried = [dict(each) for each in document["candidates"]]
    best = next(float(each["ratio"]) for each in tried if each["best"])
    return Chain(
        folder=str(document["folder"]),
        run=str(document["run"]),
        goal=str(document["goal"]),
        max_drop=float(document["max_drop"]),
        best=best,
        candidates=tuple(
            CompressionCandidate.from_json({name: value for name, value in each.items() if name != "best"})
            for each in tried
        ),
    )
