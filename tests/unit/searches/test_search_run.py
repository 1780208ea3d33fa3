"""The end of a search, from what its folder holds."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from distill.errors import RunError
from distill.pipeline.context import Options
from distill.searches import search_run as module
from distill.searches.search_run import SearchRun


def test_a_certificate_of_an_earlier_file_does_not_stay_where_none_can_be_had(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def failing(*_: Any, **__: Any) -> None:
        raise RunError("the images here are not those")

    monkeypatch.setattr(module, "certify", failing)
    (tmp_path / "certificate.json").write_text("{}")
    told: list[Any] = []
    asked = SimpleNamespace(measure=None, runtime="onnxruntime", budgets={}, max_drop=0.1, prove=False, threads=1)
    reference = SimpleNamespace(run=None)
    search: Any = SimpleNamespace(
        definition=asked,
        folder=SimpleNamespace(path=tmp_path),
        reference=reference,
        options=Options(on_event=told.append),
    )
    taken: Any = SimpleNamespace(runs=())
    assert SearchRun._certified(search, tmp_path / "best.onnx", None, taken) is None
    assert [note.message for note in told] == ["no certificate: the images here are not those"]
    assert not (tmp_path / "certificate.json").exists()
