"""Requirements that a comparison must meet, in a grammar of one line.

::

    gate  = value op value ;                value = (number | row "." column) [("+" | "-") number]
    op    = ">=" | "<=" | ">" | "<" | "=="
    row   = the name of a row, or a role: then every row of that role must meet it

As in ``student.test_top1 >= teacher.test_top1 - 0.01`` or ``r18_small.latency_b1_ms < 5``.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from distill.errors import GateMissedError, UsageError
from distill.results.roles import ROLES
from distill.results.rows import ROW_FIELDS, Comparison, Row

__all__ = ["Finding", "Gate", "Value", "check_gates", "check_rows", "findings", "missed", "parse_gate"]

_TEXT_FIELDS = {"name", "role", "run", "dataset", "objective", "test_set", "teacher", "runtime", "source_run"}
_TEXT_FIELDS |= {"on_front", "baseline", "baseline_method", "baseline_verdict", "measured_on"}
_TEXT_FIELDS |= {"train_seeds", "test_top1_each"}  # of several, none is compared
_TESTED = {"test_top1", "test_top1_std", "delta_top1", "ece", "agreement", "agreement_source"}  # of the test images
_TESTED |= {"test_top1_low", "test_top1_high", "baseline_difference", "baseline_low", "baseline_high"}
_TESTED |= {"test_balanced_accuracy", "test_macro_f1"}
_COLUMNS = tuple(name for name in ROW_FIELDS if name not in _TEXT_FIELDS)
_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_VALUE = re.compile(
    rf"\s*(?:(?P<number>[+-]?{_NUMBER})|(?P<row>[A-Za-z0-9][A-Za-z0-9_.-]*)\.(?P<column>[A-Za-z]\w*))"
    rf"\s*(?:(?P<sign>[+-])\s*(?P<offset>{_NUMBER}))?\s*",
    re.ASCII,
)
_OPERATORS = {">=": operator.ge, "<=": operator.le, "==": operator.eq, ">": operator.gt, "<": operator.lt}
_OPERATOR = re.compile(r">=|<=|==|>|<")
_EXAMPLE = "as in --require 'student.test_top1 >= teacher.test_top1 - 0.01'"


@dataclass(frozen=True)
class Value:
    """A column of a row plus an offset; without a row, the offset alone."""

    row: str | None
    column: str | None
    offset: float


@dataclass(frozen=True)
class Gate:
    """One requirement, and the text it was read from."""

    text: str
    left: Value
    op: str
    right: Value


def parse_gate(text: str) -> Gate:
    """Read one requirement.

    Raises:
        UsageError: The text is no requirement, or names an unknown column.
    """
    operators = _OPERATOR.findall(text)
    if len(operators) != 1:
        raise UsageError(f"--require {text!r}: needs exactly one of {', '.join(_OPERATORS)}", hint=_EXAMPLE)
    left, right = (_parse_value(side, text) for side in text.split(operators[0]))
    if left.row is None and right.row is None:
        raise UsageError(f"--require {text!r}: names no row", hint=_EXAMPLE)
    return Gate(text.strip(), left, operators[0], right)


def _parse_value(side: str, text: str) -> Value:
    match = _VALUE.fullmatch(side)
    if match is None:
        raise UsageError(f"--require {text!r}: cannot read {side.strip()!r}", hint=_EXAMPLE)
    column = match["column"]
    if column is not None and column not in _COLUMNS:
        raise UsageError(f"--require {text!r}: no column {column!r}", hint=f"columns: {', '.join(_COLUMNS)}")
    offset = float((match["sign"] or "") + (match["offset"] or "0"))
    return Value(match["row"], column, offset + float(match["number"] or 0))


@dataclass(frozen=True)
class Finding:
    """A gate and two rows that it holds against each other, or one row and a number.

    Attributes:
        said: The numbers, each with its 95% interval where there is one; of two accuracies that of their difference.
    """

    is_met: bool
    said: str


def findings(gate: Gate, comparison: Comparison) -> list[Finding]:
    """What a gate finds, for every pair of rows that it is about.

    A role stands for the row's own teacher or student where the table has it, beside a file for the run that it came
    from. What was found on test images is held against what was found on the same ones.

    Raises:
        UsageError: A row is not there, the column was not measured for it, or it has nothing to be held against.
    """
    rows = comparison.rows
    lefts, rights = _numbers(gate.left, rows, gate), _numbers(gate.right, rows, gate)
    return [
        Finding(_holds(left.number, gate.op, right.number), _said(left, right, comparison))
        for left in lefts
        for right in _partners(gate, left, rights)
    ]


def missed(gate: Gate, comparison: Comparison) -> list[str]:
    """For every pair of rows that does not meet the gate, the numbers; empty where it is met.

    Raises:
        UsageError: As :func:`findings`.
    """
    return [finding.said for finding in findings(gate, comparison) if not finding.is_met]


def _said(left: _Number, right: _Number, comparison: Comparison) -> str:
    """Of two accuracies the interval of their difference: each one's own says less, as both err on the same images."""
    named = [each for each in (left, right) if each.name]
    change = None
    if left.column == right.column == "test_top1" and left.row is not None and right.row is not None:
        change = comparison.difference and comparison.difference(left.row, right.row)
    if change is None or left.row is None or right.row is None:
        return ", ".join(f"{each.name} is {each.number:.6g}{_interval(each, comparison)}" for each in named)
    numbers = ", ".join(f"{each.name} is {each.number:.6g}" for each in named)
    is_of_some = change.method == "paired seeds" and change.n < max(left.row.seeds, right.row.seeds)
    of = f" over the {change.n} seeds that both have" if is_of_some else ""
    return f"{numbers}; difference of top-1{of} {change.estimate:+.4f}{_bounds(change.low, change.high, sign='+')}"


def _interval(number: _Number, comparison: Comparison) -> str:
    """The 95% interval of one number, where its column has one."""
    row, moved = number.row, number.offset
    if row is None:
        return ""
    low = high = None
    if number.column == "test_top1":
        low, high = row.test_top1_low, row.test_top1_high
    elif number.column == "baseline_difference":
        low, high = row.baseline_low, row.baseline_high
    elif number.column == "delta_top1" and comparison.difference is not None:
        teacher = next((other for other in comparison.rows if other.run == row.teacher), None)
        change = teacher and comparison.difference(row, teacher)
        low, high = (change.low, change.high) if change else (None, None)
    return "" if low is None or high is None else _bounds(low + moved, high + moved)


def _bounds(low: float, high: float, *, sign: str = "") -> str:
    return f" (95%: {low:{sign}.4f} to {high:{sign}.4f})"


@dataclass(frozen=True)
class _Number:
    """A side of a gate for one row: what it is called, and its value; a bare number has neither row nor name."""

    name: str
    number: float
    row: Row | None = None
    column: str | None = None
    offset: float = 0.0


def _partners(gate: Gate, left: _Number, rights: Sequence[_Number]) -> list[_Number]:
    """What a row is held against; a file, where a role is named, against the run it was made from."""
    if gate.right.row in ROLES and (made_from := _made_from(left.row, rights)):
        return made_from
    kin = [right for right in rights if _are_kin(left.row, right.row)]
    if kin and gate.left.row in ROLES and gate.right.row in ROLES:
        return kin
    if gate.left.column not in _TESTED or gate.right.column not in _TESTED:
        return list(rights)
    partners = [right for right in rights if _same_images(left.row, right.row)]
    if not partners:
        assert left.row is not None, "both sides have columns"
        others = ", ".join(dict.fromkeys(right.row.name for right in rights if right.row is not None))
        raise UsageError(
            f"--require {gate.text!r}: {left.row.name} was tested on other images than {others}",
            hint="name rows of one data set",
        )
    return partners


def _are_kin(one: Row | None, other: Row | None) -> bool:
    return one is not None and other is not None and (one.teacher == other.run or other.teacher == one.run)


def _made_from(row: Row | None, others: Sequence[_Number]) -> list[_Number]:
    """The row of the run that a file was made from: that run, or other seeds of its name."""
    if row is None or row.source_run is None:
        return []
    runs = [other for other in others if other.row is not None and other.row.source_run is None]
    exact = [run for run in runs if run.row is not None and run.row.run == row.source_run]
    seeds = [run for run in runs if run.row is not None and Path(run.row.run).parent == Path(row.source_run).parent]
    return exact or seeds


def _same_images(one: Row | None, other: Row | None) -> bool:
    return one is None or other is None or one.same_test_images(other)


def _numbers(value: Value, rows: Sequence[Row], gate: Gate) -> list[_Number]:
    """The value for each row it names, with a name that tells row, column and offset; a bare number has none."""
    if value.row is None or value.column is None:
        return [_Number("", value.offset)]
    matching = _named(value.row, rows, gate)
    offset = f" {'-' if value.offset < 0 else '+'} {abs(value.offset):g}" if value.offset else ""
    return [
        _Number(
            f"{row.name}.{value.column}{offset}",
            _number(row, value.column, gate) + value.offset,
            row,
            value.column,
            value.offset,
        )
        for row in matching
    ]


def _named(name: str, rows: Sequence[Row], gate: Gate) -> list[Row]:
    """The rows of that name, else those of that role which were measured here."""
    matching = [row for row in rows if row.name == name]
    matching = matching or [row for row in rows if row.role == name and row.measured_on is None]
    if not matching:
        there = ", ".join(dict.fromkeys([*(row.name for row in rows), *(row.role for row in rows)]))
        raise UsageError(f"--require {gate.text!r}: no row or role {name!r}", hint=f"there are: {there or 'none'}")
    return matching


def _number(row: Row, column: str, gate: Gate) -> float:
    number = getattr(row, column)
    if number is None:
        hint = "leave out --no-latency" if column.startswith(("latency", "images")) else None
        hint = "name what it is held against: --baseline ROW" if column.startswith("baseline_") else hint
        raise UsageError(f"--require {gate.text!r}: {row.name} has no {column}", hint=hint)
    return float(number)


def _holds(left: float, op: str, right: float) -> bool:
    # 0.92 - 0.01 is a rounding error above 0.91: sides that are equal to nine digits are equal.
    if math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-12):
        return op in (">=", "<=", "==")
    return bool(_OPERATORS[op](left, right))


def check_rows(gates: Sequence[Gate], rows: Sequence[Row]) -> None:
    """Find the rows that every requirement is about, before anything of them is timed.

    Raises:
        UsageError: One is not there.
    """
    for gate in gates:
        for value in (gate.left, gate.right):
            if value.row is not None:
                _named(value.row, rows, gate)


def check_gates(gates: Sequence[Gate], comparison: Comparison, *, tell: Callable[[str], object] = str) -> None:
    """Check every requirement.

    Args:
        tell: Handed a line for each that is met, with the numbers.

    Raises:
        GateMissedError: One line for each requirement that was missed, with the numbers.
        UsageError: A requirement names what the comparison lacks.
    """
    found = [(gate, finding) for gate in gates for finding in findings(gate, comparison)]
    for gate, finding in found:
        if finding.is_met:
            tell(f"met: {gate.text} ({finding.said})")
    lines = [f"missed: {gate.text} ({finding.said})" for gate, finding in found if not finding.is_met]
    if lines:
        raise GateMissedError("\n".join(lines))
