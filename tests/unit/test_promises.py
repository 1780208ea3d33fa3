"""docs/reliability.md names the test that holds each promise; every one of them is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
PROMISES = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", PAGE)))


@pytest.mark.parametrize(("file", "name"), PROMISES, ids=lambda part: part)
def test_the_test_of_a_promise_exists(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_promise_names_a_test() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| Promise")]
    assert len(rows) > 40
    held_by = [re.findall(r"`([^`]*)`", row.rsplit(" | ", 1)[1]) for row in rows]
    assert [row for row, names in zip(rows, held_by, strict=True) if not names] == []
    known = {f"{file}::{name}" for file, name in PROMISES}
    assert [name for names in held_by for name in names if name not in known] == []


def test_no_page_holds_the_marks_of_a_merge() -> None:
    pages = [path for path in (ROOT / "docs").rglob("*.md")] + list(ROOT.glob("*.md"))
    assert pages
    marks = re.compile(r"^(<{7}|>{7}) ", re.MULTILINE)
    assert [str(path) for path in pages if marks.search(path.read_text(encoding="utf-8"))] == []
