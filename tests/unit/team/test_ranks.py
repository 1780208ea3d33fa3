"""Who torchrun says we are."""

from __future__ import annotations

import pytest

from distill.team.ranks import process_count, process_rank, under_torchrun


def test_alone_unless_torchrun_started_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("RANK", "3")  # a scheduler's, for purposes of its own
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert (under_torchrun(), process_rank(), process_count()) == (False, 0, 1)


def test_one_of_torchruns(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "3", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    assert (under_torchrun(), process_rank(), process_count()) == (True, 3, 8)
