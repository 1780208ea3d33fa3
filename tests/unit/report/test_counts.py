"""What networks cost is counted once; what is kept never makes a number wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from distill.recipe import load_recipe
from distill.report import counts as module
from distill.report.counts import Counts, counts_of

LENET = (load_recipe("lenet_cifar10").model, 10)
CNN = (load_recipe("cnn_cifar10").model, 10)
TRUTH = [62_006, 122_570]  # published


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "networks.json"


def _params() -> list[int]:
    return [each.params for each in counts_of([LENET, CNN])]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The networks that were really counted."""
    names: list[str] = []
    real = module._count
    monkeypatch.setattr(module, "_count", lambda spec, classes: (names.append(spec.name), real(spec, classes))[1])
    return names


def test_each_network_is_counted_once(file: Path, asked: list[str]) -> None:
    assert _params() == TRUTH
    same = LENET[0].model_copy(update={"max_params": 7})
    assert counts_of([(same, 10), LENET, CNN])[0].params == TRUTH[0]
    assert asked == ["lenet", "cnn"]
    assert counts_of([(LENET[0], 11)])[0].params == TRUTH[0] + 85
    assert asked == ["lenet", "cnn", "lenet"]


def test_other_versions_count_again(file: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _params()
    monkeypatch.setattr(module, "version", lambda name: f"another {name}")
    assert _params() == TRUTH
    assert asked == ["lenet", "cnn"] * 2


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\x00\xff",
        b"[]",
        b"{}",
        b'{"made_with": 1, "counts": 2, "sha256": 3}',
        "a digit",
        "half",
        "folder",
    ],
)
def test_a_damaged_file_does_no_harm(file: Path, asked: list[str], damage: bytes | str) -> None:
    _params()
    whole = file.read_bytes()
    if damage == "folder":
        file.unlink()
        file.mkdir()
    elif damage == "a digit":
        file.write_bytes(whole.replace(b"62006", b"62007"))
    else:
        file.write_bytes(whole[: len(whole) // 2] if damage == "half" else damage)
    assert _params() == TRUTH
    assert asked == ["lenet", "cnn"] * 2
    if damage != "folder":
        assert file.read_bytes() == whole


def test_a_cache_that_cannot_be_written_does_no_harm(file: Path, asked: list[str]) -> None:
    file.parent.parent.mkdir(exist_ok=True)
    file.parent.write_text("a file where the folder should be")
    assert _params() == TRUTH
    assert _params() == TRUTH
    assert asked == ["lenet", "cnn"] * 2


def test_what_is_kept_is_what_was_counted(file: Path) -> None:
    first, second = counts_of([LENET]), counts_of([LENET])
    assert first == second == [Counts(62_006, first[0].macs)]
    assert json.loads(file.read_text())["counts"].popitem()[1] == [first[0].params, first[0].macs]


@pytest.mark.slow
def test_the_second_list_of_models_needs_no_torch(file: Path) -> None:
    def listed(code: str) -> str:
        code += "from distill import list_models; print([(row.name, row.params) for row in list_models()])"
        done = subprocess.run(
            [sys.executable, "-c", code], env=dict(os.environ), capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert listed("") == listed("import sys; sys.modules['torch'] = sys.modules['timm'] = None; ")
