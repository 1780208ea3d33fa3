"""What ``distill watch`` draws: dots where they belong, and nothing wider or higher than the terminal."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from distill.report.braille import Series, curves
from distill.report.watch import epoch_lines, watch_view
from distill.runs.follow import Seen

METRICS = tuple(
    {"epoch": e, "train_loss": 2.0 / e, "train_ce": 0.3, "train_kd": 1.7 / e, "train_top1": 1 - 0.5 / e,
     "val_loss": 2.2 / e, "val_top1": 0.5 + 0.02 * (e if e < 8 else 6)}
    for e in range(1, 11)
)  # fmt: skip
TIMING = tuple({"epoch": e, "seconds": 10.0, "images_per_s": 1234.0} for e in range(1, 11))
SEEN = Seen("runs/small/001", "student", "running", 20, METRICS, TIMING, "cpu", "epoch 10: saved", 4.0)


def shown(seen: Seen, width: int, height: int, *, letters: bool = False) -> list[str]:
    console = Console(width=width, file=io.StringIO(), color_system=None, force_terminal=False, legacy_windows=False)
    console.print(watch_view(seen, width=width, height=height, letters=letters))
    return console.file.getvalue().rstrip("\n").split("\n")


def _lit(lines: list[str]) -> set[tuple[int, int]]:
    """Columns and rows of all dots, by Unicode's numbering of the eight dots of a Braille cell."""
    order = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3)]
    found = set()
    for row, line in enumerate(lines):
        for column, char in enumerate(line):
            bits = ord(char) - 0x2800 if char != " " else 0
            found |= {(2 * column + dx, 4 * row + dy) for bit, (dx, dy) in enumerate(order) if bits >> bit & 1}
    return found


def test_a_diagonal_is_a_diagonal() -> None:
    line = Series([(0.0, 0.0), (1.0, 1.0)], "red", "a")
    lines = [text.plain for text in curves([line], width=4, height=2, x=(0, 1), y=(0, 1))]
    assert _lit(lines) == {(i, 7 - i) for i in range(8)}


def test_corners_are_corners_and_points_outside_are_left_out() -> None:
    corners = [Series([(x, y)], "", "a") for x in (0.0, 1.0) for y in (0.0, 1.0)]
    lines = [text.plain for text in curves(corners, width=3, height=2, x=(0, 1), y=(0, 1))]
    assert _lit(lines) == {(0, 0), (5, 0), (0, 7), (5, 7)}
    outside = Series([(2.0, 0.5), (0.5, float("nan"))], "", "a")
    assert [text.plain.strip() for text in curves([outside], width=3, height=2, x=(0, 1), y=(0, 1))] == ["", ""]


def test_letters_stand_for_lines() -> None:
    flat = [Series([(0, 0), (1, 0)], "", "t"), Series([(0, 1), (1, 1)], "", "v")]
    assert [text.plain for text in curves(flat, width=4, height=2, x=(0, 1), y=(0, 1), letters=True)] == [
        "vvvv",
        "tttt",
    ]


@pytest.mark.parametrize("size", [(40, 24), (60, 24), (80, 24), (90, 30), (120, 40), (200, 60)])
@pytest.mark.parametrize("letters", [False, True])
def test_it_fits_the_terminal(size: tuple[int, int], letters: bool) -> None:
    lines = shown(SEEN, *size, letters=letters)
    assert max(map(len, lines)) <= size[0]
    assert len(lines) <= size[1]
    if letters:
        assert all(line.isascii() for line in lines)


def test_it_says_how_far_how_fast_and_how_good() -> None:
    text = "\n".join(shown(SEEN, 120, 40))
    assert "runs/small/001  running\nepoch 10/20  1,234 images/s  10.0s an epoch  1m36s left" in text
    assert "last heard of 4.0s ago" in text
    assert "validation 62.0% (best 64.0%)" in text
    assert "loss 0.200 (ce 0.3 kd 0.17)" in text
    assert "epoch 10: saved" in text


def test_a_run_that_has_just_begun_or_failed() -> None:
    begun = replace(SEEN, metrics=(), timing=(), epochs=20)
    assert "no epoch has ended yet" in "\n".join(shown(begun, 80, 24))
    failed = replace(SEEN, status="failed", error="the disk is full\x1b[31m\nsecond line")
    text = "\n".join(shown(failed, 120, 40))
    assert "failed" in text
    assert "the disk is full\\x1b[31m" in text
    assert "left" not in text


def test_one_value_alone_and_no_validation() -> None:
    one = replace(SEEN, metrics=({"epoch": 1, "train_loss": 0.0, "val_top1": None},), timing=())
    assert "training 0" in "\n".join(shown(one, 80, 24))


def test_lines_for_a_pipe_are_those_of_the_epochs_that_are_new() -> None:
    lines = epoch_lines(SEEN, 8)
    assert len(lines) == 2
    assert lines[-1] == (
        "epoch 10/20  loss 0.200 (ce 0.3 kd 0.17)  val top-1 62.0% (best 64.0%)  1,234 images/s  1m40s left"
    )
