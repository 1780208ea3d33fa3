"""The page's table: its columns, what a cell shows, and the number that it is sorted by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from distill.report.page.content import Member
from distill.results.rows import Row
from distill.text import MISSING, count, fixed, percent, signed

__all__ = ["Cell", "Column", "columns"]


@dataclass(frozen=True)
class Cell:
    """What is shown, with a second line below, and what it is sorted by; None goes last."""

    text: str
    value: float | str | None
    kind: str = ""
    below: str = ""


@dataclass(frozen=True)
class Column:
    """A head with its unit, what it means, and a cell for each member."""

    head: str
    unit: str
    about: str
    words: bool
    cells: tuple[Cell, ...]


_Make = Callable[[Row], Cell]


def _number(name: str, show: Callable[[float], str]) -> _Make:
    def make(row: Row) -> Cell:
        value = getattr(row, name)
        return Cell(MISSING, None) if value is None else Cell(show(value), float(value))

    return make


def _accuracy(row: Row) -> Cell:
    if row.test_top1 is None:
        return Cell(MISSING, None)
    spread = f" ± {percent(row.test_top1_std)}" if row.test_top1_std is not None else ""
    low, high = row.test_top1_low, row.test_top1_high
    bounds = "" if low is None or high is None else f"{percent(low)} to {percent(high)}"
    return Cell(f"{percent(row.test_top1)}{spread}", row.test_top1, below=bounds)


def _difference(row: Row) -> Cell:
    if row.baseline == row.run and row.baseline is not None:
        return Cell("baseline", 0.0, "quiet")
    if row.baseline_difference is None or row.baseline_low is None or row.baseline_high is None:
        return Cell(MISSING, None)
    bounds = f"{signed(row.baseline_low)} to {signed(row.baseline_high)}"
    return Cell(signed(row.baseline_difference), row.baseline_difference, below=bounds)


def _verdict(row: Row) -> Cell:
    word = row.baseline_verdict
    kinds = {"better": "good", "worse": "bad"}
    return Cell(word or MISSING, word, kinds.get(word or "", "quiet"))


def _front(row: Row) -> Cell:
    if row.on_front is None:
        return Cell(MISSING, None)
    return Cell("yes" if row.on_front else "no", float(row.on_front), "good" if row.on_front else "quiet")


_COLUMNS: tuple[tuple[str, str, str, bool, _Make], ...] = (
    ("seeds", "n", "Runs that the means are of", False, lambda row: Cell(count(row.seeds), float(row.seeds))),
    ("test top-1", "%", "Mean, sample standard deviation over seeds; below, the 95% interval: Wilson's of one run's "
     "images, Student's t over seeds", False, _accuracy),
    ("Δ teacher", "points", "Test top-1 less the teacher's", False, _number("delta_top1", signed)),
    ("Δ baseline", "points", "Test top-1 less the baseline's; below, its 95% interval", False, _difference),
    ("verdict", "", "Against the baseline, by a test on the same images", True, _verdict),
    ("parameters", "", "", False, _number("params", count)),
    ("size", "MB", "Of parameters and buffers in float32; of a file its bytes", False,
     _number("size_mb", lambda value: fixed(value, 3 if value < 1 else 2))),
    ("latency", "ms", "Median for one image", False,
     _number("latency_b1_ms", lambda value: fixed(value, 3 if value < 1 else 2))),
    ("front", "", "Yes: no row of the same test images is as accurate and faster, or as fast and more accurate", True,
     _front),
    ("throughput", "images/s", "In batches of 32, on a GPU of 256", False, _number("images_per_s", count)),
    ("GMACs", "", "Billions of multiply-accumulates for one image", False,
     _number("gmacs", lambda value: f"{value:.3g}")),
    ("agreement", "%", "Test images given the teacher's class", False,
     _number("agreement", lambda value: percent(value, 1))),
    ("ECE", "%", "Expected calibration error, 15 bins", False, _number("ece", lambda value: percent(value, 1))),
    ("runtime", "", "What computed the answers, in which arithmetic", True,
     lambda row: Cell(row.runtime or MISSING, row.runtime)),
    ("role", "", "What the recipe trains", True, lambda row: Cell(row.role, row.role)),
)  # fmt: skip


def columns(members: Sequence[Member]) -> list[Column]:
    """The columns that have a value."""
    made = [
        Column(head, unit, about, words, tuple(make(member.row) for member in members))
        for head, unit, about, words, make in _COLUMNS
    ]
    return [column for column in made if any(cell.value is not None for cell in column.cells)]
