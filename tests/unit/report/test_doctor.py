"""What the machine has: nothing it lacks is an error, except what distill cannot work without."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from distill.report import doctor


def test_an_empty_machine_is_not_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISTILL_CACHE", "HF_HUB_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    checks = {check.name: check for check in doctor.examine(data_root=tmp_path, runs_dir=tmp_path / "runs")}
    assert [check for check in checks.values() if check.status == "broken"] == []
    assert checks["torch"].detail
    assert {checks[name].status for name in ("cifar10", "cifar100", "decoded", "runs", "timm")} <= {"absent", "ok"}
    assert checks["cifar10"].fix


def test_a_machine_without_a_home_folder_is_not_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISTILL_CACHE", "HF_HUB_CACHE"):
        monkeypatch.setenv(name, "~nobody-of-this-name/cache")
    checks = {check.name: check for check in doctor.examine(data_root=tmp_path, runs_dir=tmp_path / "runs")}
    assert {checks[name].status for name in ("decoded", "timm")} == {"absent"}


def test_what_is_there_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    (tmp_path / "models--timm--resnet18.tv_in1k").mkdir()
    (tmp_path / "cifar-10-batches-py").mkdir()
    checks = [check for check in doctor.examine(data_root=tmp_path, runs_dir=tmp_path) if check.status == "ok"]
    assert any(check.name == "cifar10" and check.topic == "data" for check in checks)
    assert any("resnet18.tv_in1k" in check.detail for check in checks)


def test_a_library_that_does_not_load_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist\nmore")

    monkeypatch.setattr(importlib, "import_module", fail)
    broken = [check for check in doctor._core() if check.status == "broken"]
    assert [check.name for check in broken] == ["torch", "torchvision", "timm"]
    assert broken[1].detail == "does not load: operator torchvision::nms does not exist"
    assert broken[1].fix
