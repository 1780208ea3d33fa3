"""Opening a study's storage while other workers do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from distill.errors import RunError
from distill.sweeps import storage


def _optuna(*refusals: str) -> tuple[Any, list[str]]:
    """One whose storage is refused so often, for these reasons, and the URLs that it was asked for."""
    left, asked = list(refusals), list[str]()

    def open_storage(url: str) -> str:
        asked.append(url)
        if left:
            raise ValueError(left.pop(0))
        return "opened"

    return SimpleNamespace(storages=SimpleNamespace(RDBStorage=open_storage)), asked


@pytest.mark.parametrize(
    "refusal",
    [
        "(sqlite3.OperationalError) table studies already exists",
        "(sqlite3.OperationalError) database is locked",
        "(sqlite3.IntegrityError) UNIQUE constraint failed: alembic_version.version_num",
    ],
)
def test_an_sqlite_file_that_another_worker_makes_is_opened_again(
    refusal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_BETWEEN_S", 0.0)
    optuna, asked = _optuna(refusal, refusal)
    assert storage._open_storage(optuna, "sqlite:////shared/study.db") == "opened"
    assert len(asked) == 3


def test_an_sqlite_file_that_cannot_be_is_refused_at_once() -> None:
    optuna, asked = _optuna("(sqlite3.OperationalError) unable to open database file")
    with pytest.raises(RunError, match="unable to open database file"):
        storage._open_storage(optuna, "sqlite:////missing/study.db")
    assert len(asked) == 1
