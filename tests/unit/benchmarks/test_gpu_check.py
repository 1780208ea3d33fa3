"""The one command for a card: each check runs on the CPU, and one that fails is told, kept, and stops none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import gpu_check


@pytest.mark.slow
def test_every_check_but_the_cards_own_runs_on_a_cpu(tmp_path: Path) -> None:
    out = tmp_path / "check.json"
    assert gpu_check.main(["--tiny", "--device", "cpu", "--out", str(out)]) == 0
    checks = json.loads(out.read_text())["checks"]
    assert list(checks) == list(gpu_check.CHECKS)
    assert {step["name"] for step in checks["speed"]["steps"]} == {"distill, bank", "distill, live", "timm.task"}


def test_a_check_that_fails_is_kept_and_stops_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_setting: gpu_check.Setting) -> dict[str, object]:
        raise RuntimeError("no such kernel")

    monkeypatch.setitem(gpu_check.CHECKS, "parity", fails)
    monkeypatch.setitem(gpu_check.CHECKS, "bank", lambda _setting: {"ok": True})
    out = tmp_path / "check.json"
    assert gpu_check.main(["--tiny", "--device", "cpu", "--out", str(out), "--only", "parity", "bank"]) == 1
    checks = json.loads(out.read_text())["checks"]
    assert (checks["parity"]["ok"], checks["bank"]["ok"]) == (False, True)
    assert "no such kernel" in checks["parity"]["failed"]
