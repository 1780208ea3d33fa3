"""The verdict, in words, from what ``compare`` computed; nothing here is computed anew but ratios."""

from __future__ import annotations

from distill.report.page.content import Sentence
from distill.report.verdict import METHODS
from distill.results.rows import Row
from distill.text import count, counted, fixed, percent, several, signed

__all__ = ["accuracy", "against", "evidence", "kept", "lead", "method", "shipped"]


def method(row: Row) -> str:
    """How a row was held against its baseline, and on how much."""
    unit = "images" if row.baseline_method == "mcnemar" else "seeds"
    how = METHODS.get(row.baseline_method or "", "")
    n = f"n = {count(row.baseline_n)} {unit if row.baseline_n != 1 else unit[:-1]}" if row.baseline_n else ""
    p = f"p = {row.baseline_p:.2g}" if row.baseline_p is not None else ""
    return "; ".join(each for each in (how, n, p) if each)


def against(row: Row, name: str, other: str) -> Sentence | None:
    """A row against its baseline: better, worse, or what would tell; None where it was not held against one."""
    if row.baseline_difference is None or row.baseline_low is None or row.baseline_high is None:
        return None
    points = _points(abs(row.baseline_difference))
    bounds = f"95% interval {signed(row.baseline_low)} to {signed(row.baseline_high)} points"
    if row.baseline_verdict in ("better", "worse"):
        text = f"{name} is {row.baseline_verdict} than {other} by {points}."
    else:
        unit = "images" if row.baseline_method == "mcnemar" else "seeds"
        needed = f"; about {count(row.baseline_needed)} {unit} would tell" if row.baseline_needed else ""
        text = f"{name} and {other} cannot be told apart: {signed(row.baseline_difference)} points{needed}."
    return Sentence(text, f"{bounds}; {method(row)}")


def _points(share: float) -> str:
    return f"{percent(share)} points"


def evidence(row: Row, other: str) -> Sentence | None:
    """The same as a line to read below the verdict: against whom, how much, how sure."""
    told = against(row, row.name, other)
    if told is None or row.baseline_difference is None:
        return None
    return Sentence(f"Against {other}: {row.baseline_verdict}, {signed(row.baseline_difference)} points", told.detail)


def accuracy(row: Row, teacher: Row) -> Sentence | None:
    """Both accuracies, and of what they are means."""
    if row.test_top1 is None or teacher.test_top1 is None:
        return None
    text = f"Test top-1: {percent(row.test_top1)}%, the teacher's {percent(teacher.test_top1)}%"
    return Sentence(text, _spread(row))


def shipped(row: Row, name: str) -> Sentence | None:
    """What became of it as a file."""
    if row.test_top1 is None:
        return None
    size = f" in {fixed(row.size_mb, 3 if row.size_mb < 1 else 1)} MB" if row.size_mb is not None else ""
    same = row.agreement_source
    told = f"it gives the class of the run that it was made from to {percent(same, 1)}% of the images"
    return Sentence(f"As the file {name}: {percent(row.test_top1)}%{size}", told if same is not None else "")


def kept(row: Row, teacher: Row, name: str) -> Sentence | None:
    """What a student keeps of its teacher, and what that costs less; None where an accuracy is missing."""
    if not row.test_top1 or not teacher.test_top1:
        return None
    what = f"{name} keeps {percent(row.test_top1 / teacher.test_top1, 1)}% of its teacher's test accuracy"
    less = _less(row, teacher)
    return Sentence(f"{what} {less}." if less else f"{what}.", _spread(row))


def _spread(row: Row) -> str:
    """Of how many seeds and images a mean is."""
    seeds = f"mean of {count(row.seeds)} seeds, ± {percent(row.test_top1_std)}" if row.seeds > 1 else ""
    images = f"{count(row.test_images)} test images" if row.test_images else ""
    return ", ".join(each for each in (seeds, images) if each)


def _less(row: Row, teacher: Row) -> str:
    """``with 52 times fewer parameters, 1.9 times faster``: what was measured, and is an advantage."""
    fewer = teacher.params / row.params if teacher.params and row.params else 0.0
    told = [f"with {_times(fewer)} fewer parameters"] if fewer >= 1.05 else []
    if row.times_smaller and row.times_smaller >= 1.05 and not told:
        told.append(f"in {_times(row.times_smaller)} less memory")
    faster = row.times_faster or 0.0
    if faster >= 1.05:
        told.append(f"{_times(faster)} faster on one image")
    elif 0 < faster < 0.95:
        told.append(f"but {_times(1 / faster)} slower on one image")
    return ", ".join(told)


def _times(ratio: float) -> str:
    return f"{fixed(ratio, 0 if ratio >= 9.5 else 1)} times"


def lead(name: str | None, row: Row | None, teacher: Row | None, sentence: Sentence | None, names: list[str]) -> str:
    """The verdict in one sentence.

    Args:
        name: Of the student that the page is about, and its ``row``; None where there is none.
        teacher: Its teacher's row.
        sentence: What :func:`against` says of it and the baseline.
        names: Of all rows, for a page without a student.
    """
    if name is None or row is None:
        return f"{counted(len(names), 'model')} side by side: {several(names, 4)}."
    told = kept(row, teacher, name) if teacher is not None else None
    if told is None:
        return sentence.text if sentence else f"{name} is right on {percent(row.test_top1)}% of the test images."
    if sentence is None:
        return told.text
    rest = sentence.text.removeprefix(f"{name} ")
    joined = f", and {rest}" if rest != sentence.text and rest.startswith("is ") else f"; {sentence.text}"
    return f"{told.text.removesuffix('.')}{joined}"
