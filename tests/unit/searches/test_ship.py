"""Which run the file of a search is of: a certificate is about that one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from distill.errors import GateMissedError
from distill.pipeline import Options
from distill.searches import finals
from distill.searches.reference import Reference

RUN = Path("searches/s/trials/001")
LABELS = np.arange(8) % 2


@pytest.fixture(autouse=True)
def _without_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = SimpleNamespace(logits=np.eye(2)[LABELS], labels=LABELS)
    monkeypatch.setattr(finals, "open_onnx", lambda path: path)
    monkeypatch.setattr(finals, "assess_file", lambda path, split: answers)


def _shipped(
    monkeypatch: pytest.MonkeyPatch, runtime: Any, quantized: Any = None, seed: int = 0, tell: Any = None
) -> finals.Shipped:
    def quantize(*_: Any, **__: Any) -> Any:
        if isinstance(quantized, Exception):
            raise quantized
        return quantized

    monkeypatch.setattr(finals, "quantize", quantize)
    monkeypatch.setattr(finals, "export", lambda run, **_: SimpleNamespace(run=run))
    final = finals.Final(("search",), None, (SimpleNamespace(path=RUN),), (seed,), np.ones((1, 8), dtype=bool))  # type: ignore[arg-type]
    reference = Reference("teacher", np.ones(8, dtype=bool), None)
    return finals.ship(
        final, Path("searches/s"), reference, runtime=runtime, max_drop=0.01, options=Options(on_event=tell)
    )


def test_it_is_the_one_that_was_trained_on_with_rounded_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    rounded = Path("searches/s/rounded/001")
    made = _shipped(monkeypatch, "onnxruntime-int8", SimpleNamespace(trained=rounded, run=RUN))
    assert (made.run, made.file) == (rounded, Path("searches/s/best.onnx"))


@pytest.mark.parametrize("runtime", ["onnxruntime-int8", "onnxruntime", "torch"])
def test_else_it_is_the_finalists_own(monkeypatch: pytest.MonkeyPatch, runtime: str) -> None:
    made = _shipped(monkeypatch, runtime, SimpleNamespace(trained=None, run=RUN))
    assert made.run == RUN
    assert made.drop is not None
    assert made.drop.drop.estimate == 0.0


def test_where_int8_loses_too_much_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    made = _shipped(monkeypatch, "onnxruntime-int8", GateMissedError("no int8 file"))
    assert (made.file, made.run, made.why) == (None, None, "no int8 file")


def test_a_file_of_another_seed_than_the_recipes_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    assert _shipped(monkeypatch, "onnxruntime", tell=told.append).run == RUN
    assert not told
    assert _shipped(monkeypatch, "onnxruntime", seed=1, tell=told.append).run == RUN
    (note,) = told
    path = Path("searches/s/best.onnx")
    assert (note.level, note.message) == ("warning", f"the recipe's own seed could not be trained: {path} is of {RUN}")
