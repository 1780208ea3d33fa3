"""Gates: the grammar, what it selects, and what a missed one says."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from distill.errors import GateMissedError, UsageError
from distill.report.gates import Gate, Value, check_gates, parse_gate
from distill.report.gates import missed as missed_in
from distill.results.rows import Comparison, Difference, Row


def _row(name: str, role: str, top1: float | None, **more: Any) -> Row:
    return Row(name, role, f"runs/{name}/001", "digits", "kd", 1, top1, **{"test_set": "a"} | more)


ROWS = (_row("big", "teacher", 0.95, params=100), _row("r18-small.v2", "student", 0.94), _row("r20", "student", 0.90))
COMPARISON = Comparison(ROWS, "cpu", 1)


def missed(gate: Gate, rows: Sequence[Row]) -> list[str]:
    return missed_in(gate, Comparison(tuple(rows), "cpu", 1))


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        (
            "student.test_top1 >= teacher.test_top1 - 0.01",
            (Value("student", "test_top1", 0.0), ">=", Value("teacher", "test_top1", -0.01)),
        ),
        (
            "r18-small.v2.test_top1>big.test_top1-0.01",
            (Value("r18-small.v2", "test_top1", 0.0), ">", Value("big", "test_top1", -0.01)),
        ),
        ("a.params<=5e6", (Value("a", "params", 0.0), "<=", Value(None, None, 5e6))),
        (" .5 < a.ece + 1 ", (Value(None, None, 0.5), "<", Value("a", "ece", 1.0))),
        ("a.ece == -1", (Value("a", "ece", 0.0), "==", Value(None, None, -1.0))),
    ],
)
def test_reads(text: str, gate: tuple) -> None:
    assert parse_gate(text) == Gate(text.strip(), *gate)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "student.test_top1",
        "1 > 0",
        "a.test_top1 > b.test_top1 > c.test_top1",
        "a.test_top1 => 0.5",
        "a.test_top1 != 0.5",
        "a.test_top1 > b.test_top1 * 2",
        "a.test_top1 > (0.5)",
        "a.tset_top1 > 0.5",
        "a.run > 0.5",
        "a.__class__ > 0.5",
        "__import__('os').system('true') > 0",
        "a.test_top1 > nan",
        "a.test_top1 > ٣",
    ],
)
def test_refuses(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_gate(text)
    assert caught.value.hint


def test_what_was_found_on_other_images_is_not_held_against_it() -> None:
    """A student of one data set, and a teacher of another that happens to be worse."""
    rows = (
        _row("big", "teacher", 0.95, test_set="a"),
        _row("small", "student", 0.94, test_set="a"),
        _row("other", "teacher", 0.10, test_set="b", params=9),
        _row("alone", "student", 0.99, test_set="c"),
    )
    assert missed(parse_gate("small.test_top1 >= teacher.test_top1"), rows) == [
        "small.test_top1 is 0.94, big.test_top1 is 0.95"
    ]
    assert missed(parse_gate("student.test_top1 >= teacher.test_top1 - 0.02"), rows[:3]) == []
    for text in ("student.test_top1 >= teacher.test_top1", "small.test_top1 >= other.test_top1"):
        with pytest.raises(UsageError, match="was tested on other images than") as caught:
            missed(parse_gate(text), rows)
        assert caught.value.hint == "name rows of one data set"
    assert missed(parse_gate("other.params <= 10"), rows) == []


def test_a_student_is_held_against_its_own_teacher() -> None:
    rows = (
        _row("big", "teacher", 0.95, test_set="a"),
        _row("huge", "teacher", 0.99, test_set="a"),
        _row("small", "student", 0.94, test_set="a", teacher="runs/big/001"),
    )
    assert missed(parse_gate("student.test_top1 >= teacher.test_top1 - 0.01"), rows) == []
    assert missed(parse_gate("teacher.test_top1 <= student.test_top1 + 0.01"), rows[::2]) == []
    assert len(missed(parse_gate("small.test_top1 >= huge.test_top1 - 0.01"), rows)) == 1


def test_a_file_is_held_against_the_run_it_came_from() -> None:
    """Where both bear a role, and another student is better than both; one run of several seeds made the file."""
    rows = (
        _row("small", "student", 0.94, test_set="a"),
        _row("best", "student", 0.99, test_set="a"),
        _row("small_int8", "student", 0.93, test_set="a", source_run="runs/small/001"),
    )
    gate = parse_gate("small_int8.test_top1 >= student.test_top1 - 0.001")
    assert missed(gate, rows) == ["small_int8.test_top1 is 0.93, small.test_top1 - 0.001 is 0.939"]
    seeds = (*rows[:2], dataclasses.replace(rows[2], source_run="runs/small/000"))
    assert missed(gate, seeds) == missed(gate, rows)


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(UsageError):
        parse_gate(text)


_SPACES = st.text(" ", max_size=2)
_NUMBERS = st.sampled_from(["0", "0.01", ".5", "3.", "5e6", "1.5E-3"])


@st.composite
def _values(draw: st.DrawFn) -> tuple[str, Value]:
    """A number, or a row's column with or without an offset: its text, and what it says."""
    if draw(st.booleans()):
        number = draw(st.sampled_from(["", "-", "+"])) + draw(_NUMBERS)
        return number, Value(None, None, float(number))
    row = draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,8}", fullmatch=True))
    column = draw(st.sampled_from(["test_top1", "params", "latency_b1_ms"]))
    if draw(st.booleans()):
        return f"{row}.{column}", Value(row, column, 0.0)
    sign, offset = draw(st.sampled_from("+-")), draw(_NUMBERS)
    return f"{row}.{column}{draw(_SPACES)}{sign}{draw(_SPACES)}{offset}", Value(row, column, float(sign + offset))


@given(_values(), st.sampled_from([">=", "<=", "==", ">", "<"]), _values(), _SPACES, _SPACES)
def test_whatever_the_grammar_makes_is_read_as_it_says(
    left: tuple[str, Value], op: str, right: tuple[str, Value], before: str, after: str
) -> None:
    assume(left[1].column is not None or right[1].column is not None)
    text = f"{left[0]}{before}{op}{after}{right[0]}"
    assert parse_gate(text) == Gate(text, left[1], op, right[1])


@pytest.mark.parametrize(
    "text",
    [
        "r18-small.v2.test_top1 >= big.test_top1 - 0.01",  # 0.95 - 0.01 is 0.9399999999999999
        "student.test_top1 >= 0.9",  # every student
        "student.test_top1 <= teacher.test_top1",
        "0.95 == teacher.test_top1",
        "big.params < 101",
    ],
)
def test_met(text: str) -> None:
    check_gates([parse_gate(text)], COMPARISON)


def test_a_role_means_every_row_of_it() -> None:
    told = missed(parse_gate("student.test_top1 >= teacher.test_top1 - 0.02"), ROWS)
    assert told == ["r20.test_top1 is 0.9, big.test_top1 - 0.02 is 0.93"]


def test_a_name_comes_before_a_role() -> None:
    rows = (_row("student", "teacher", 0.5), _row("other", "student", 0.9))
    assert missed(parse_gate("student.test_top1 < 0.6"), rows) == []


def test_missed_gates_are_told_together() -> None:
    gates = [parse_gate("r20.test_top1 > 0.91"), parse_gate("big.params > 1"), parse_gate("r20.test_top1 > 0.92")]
    with pytest.raises(GateMissedError) as caught:
        check_gates(gates, COMPARISON)
    assert caught.value.message.splitlines() == [
        "missed: r20.test_top1 > 0.91 (r20.test_top1 is 0.9)",
        "missed: r20.test_top1 > 0.92 (r20.test_top1 is 0.9)",
    ]
    assert caught.value.exit_code == 3


def test_equal_numbers_are_not_greater() -> None:
    assert missed(parse_gate("r20.test_top1 > 0.9"), ROWS)
    assert missed(parse_gate("r20.test_top1 < 0.9"), ROWS)


def test_what_is_not_a_number_meets_no_gate() -> None:
    rows = (_row("a", "student", float("nan")),)
    assert missed(parse_gate("a.test_top1 >= 0"), rows)
    assert missed(parse_gate("a.test_top1 <= 0"), rows)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nobody.test_top1 > 0", "there are: big, r18-small.v2, r20, teacher, student"),
        ("r20.latency_b1_ms < 5", "--no-latency"),
    ],
)
def test_what_is_not_there_is_wrong_usage(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        missed(parse_gate(text), ROWS)
    assert caught.value.exit_code == 2
    assert words in (caught.value.hint or "")


# Intervals


def test_an_accuracy_bears_its_own_interval_moved_by_the_offset() -> None:
    rows = (_row("a", "student", 0.9, test_top1_low=0.8612, test_top1_high=0.9288),)
    assert missed(parse_gate("a.test_top1 >= 0.95"), rows) == ["a.test_top1 is 0.9 (95%: 0.8612 to 0.9288)"]
    told = missed(parse_gate("a.test_top1 - 0.01 >= 0.95"), rows)
    assert told == ["a.test_top1 - 0.01 is 0.89 (95%: 0.8512 to 0.9188)"]
    assert missed(parse_gate("a.params > 5"), (dataclasses.replace(rows[0], params=1),)) == ["a.params is 1"]


def test_two_accuracies_bear_that_of_their_difference() -> None:
    asked: list[tuple[str, str]] = []

    def difference(row: Row, other: Row) -> Difference | None:
        asked.append((row.name, other.name))
        return Difference(-0.05, -0.0712, -0.0288, "mcnemar", 100) if row.name == "r20" else None

    rows = tuple(dataclasses.replace(row, test_top1_low=0.1, test_top1_high=0.2, teacher=ROWS[0].run) for row in ROWS)
    table = Comparison(rows, "cpu", 1, difference=difference)
    told = missed_in(parse_gate("student.test_top1 >= teacher.test_top1 - 0.001"), table)
    assert told == [
        "r18-small.v2.test_top1 is 0.94 (95%: 0.1000 to 0.2000), "
        "big.test_top1 - 0.001 is 0.949 (95%: 0.0990 to 0.1990)",
        "r20.test_top1 is 0.9, big.test_top1 - 0.001 is 0.949; difference of top-1 -0.0500 (95%: -0.0712 to -0.0288)",
    ]
    assert asked == [("r18-small.v2", "big"), ("r20", "big")]
    some = dataclasses.replace(table, difference=lambda *_: Difference(0.0, -0.01, 0.01, "paired seeds", 2))
    seeds = dataclasses.replace(some, rows=tuple(dataclasses.replace(row, seeds=4) for row in rows))
    (*_, told_of_some) = missed_in(parse_gate("student.test_top1 >= teacher.test_top1 - 0.001"), seeds)
    assert told_of_some.endswith(
        "; difference of top-1 over the 2 seeds that both have +0.0000 (95%: -0.0100 to +0.0100)"
    )
    (*_, told_of_all) = missed_in(parse_gate("student.test_top1 >= teacher.test_top1 - 0.001"), some)
    assert "difference of top-1 +0.0000" in told_of_all
    students = dataclasses.replace(table, rows=(rows[0], dataclasses.replace(rows[2], delta_top1=-0.05)))
    told = missed_in(parse_gate("student.delta_top1 > -0.01"), students)
    assert told == ["r20.delta_top1 is -0.05 (95%: -0.0712 to -0.0288)"]


def test_a_difference_from_the_baseline_bears_its_own() -> None:
    rows = (_row("a", "student", 0.9, baseline_difference=0.01, baseline_low=-0.002, baseline_high=0.022),)
    told = missed(parse_gate("a.baseline_difference > 0.02"), rows)
    assert told == ["a.baseline_difference is 0.01 (95%: -0.0020 to 0.0220)"]
    assert missed(parse_gate("a.baseline_low >= 0"), rows) == ["a.baseline_low is -0.002"]


def test_what_is_met_is_told_too() -> None:
    told: list[str] = []
    gates = [parse_gate(text) for text in ("big.params < 101", "student.test_top1 >= 0.9", "r20.test_top1 > 0.9")]
    with pytest.raises(GateMissedError, match=r"^missed: r20.test_top1 > 0.9 "):
        check_gates(gates, COMPARISON, tell=told.append)
    assert told == [
        "met: big.params < 101 (big.params is 100)",
        "met: student.test_top1 >= 0.9 (r18-small.v2.test_top1 is 0.94)",
        "met: student.test_top1 >= 0.9 (r20.test_top1 is 0.9)",
    ]
