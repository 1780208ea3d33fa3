"""What a search's report says would have met what was missed."""

from __future__ import annotations

from typing import Any

import pytest

from distill.results.search import SearchReport

ASKED: dict[str, Any] = {
    "name": "mine", "folder": "searches/mine", "recipe": "mine", "budgets": {"params": 1000.0},
    "runtime": "onnxruntime", "threads": 1, "machine": "here", "noise": None, "max_drop": 0.01, "prove": False,
    "reference": "teacher", "evaluations": 4, "missed": "it was not enough",
}  # fmt: skip
LOST = {"estimate": 0.0312, "low": 0.01, "high": 0.0518}


@pytest.mark.parametrize(
    ("found", "hint"),
    [
        ({"nearest": {"params": 1506.0}}, "about --budget 'params <= 1506' would do"),
        ({"drop": LOST}, "allow more: --max-drop 0.032"),
        ({"drop": LOST, "prove": True}, "allow more: --max-drop 0.052"),
        ({"drop": LOST, "nearest": {"params": 2000.0}}, "about --budget 'params <= 2000' would do"),
        ({"drop": LOST | {"high": 1.0}, "prove": True}, "see searches/mine/result.json"),  # no loss below 1 is enough
        ({}, "see searches/mine/result.json"),  # nothing could be trained: a larger loss allows nothing
    ],
)
def test_a_hint_names_what_can_be_typed(found: dict[str, Any], hint: str) -> None:
    assert SearchReport(**(ASKED | found)).hint == hint
