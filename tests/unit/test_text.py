"""The examples in the docstrings of what is written alike everywhere."""

from __future__ import annotations

import doctest

import pytest

from distill import text
from distill.recipe import dump


@pytest.mark.parametrize("module", [text, dump], ids=lambda module: module.__name__)
def test_examples_are_true(module) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def test_nothing_that_is_written_moves_the_cursor_or_breaks_the_line() -> None:
    every = "".join(map(chr, range(0x110000)))
    assert text.plain(every).isprintable()
    assert text.plain(text.plain("\udcff\x1b\n")) == r"\udcff\x1b\n"
    assert text.plain_lines("a\n\tb\x1b") == "a\n\tb\\x1b"
