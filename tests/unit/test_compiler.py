"""A machine without a compiler trains uncompiled and says so; who asked for compiling gets a line and no traceback."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from distill.devices import compiler
from distill.devices.compiler import why_not_compile
from distill.errors import MissingError, UsageError
from distill.events import Note
from distill.pipeline import resolve
from distill.recipe import load_recipe

CUDA = torch.device("cuda", 0)
_FIND_SPEC = importlib.util.find_spec


@pytest.fixture
def gpu_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with a GPU, Triton and Python's headers, and a folder that is its whole path."""
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(compiler.sysconfig, "get_path", lambda name, *scheme: str(tmp_path))
    _pretend_triton(monkeypatch, is_there=True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def _pretend_triton(monkeypatch: pytest.MonkeyPatch, *, is_there: bool) -> None:
    def find(name: str, package: str | None = None) -> object:
        return (object() if is_there else None) if name == "triton" else _FIND_SPEC(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find)


def _add_compiler(folder: Path, name: str) -> None:
    (folder / name).write_text("#!/bin/sh\n")
    (folder / name).chmod(0o755)


def test_each_thing_that_is_missing_is_named(gpu_box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no C compiler" in why_not_compile(CUDA)
    assert "no C++ compiler" in why_not_compile(torch.device("cpu"))
    _add_compiler(gpu_box, "gcc")
    assert why_not_compile(CUDA) is None
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
    assert "7.0, and this GPU has 6.1" in why_not_compile(CUDA)
    _pretend_triton(monkeypatch, is_there=False)
    assert "Triton is not installed" in why_not_compile(CUDA)
    (gpu_box / "Python.h").unlink()
    assert "Python.h" in why_not_compile(CUDA)


def test_a_compiler_of_ones_own(gpu_box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _add_compiler(gpu_box, "special-cc")
    monkeypatch.setenv("CC", "special-cc")
    assert why_not_compile(CUDA) is None
    monkeypatch.setenv("CC", "gone-cc")
    assert "$CC names a compiler that is not here (gone-cc)" in why_not_compile(CUDA)


def test_auto_goes_without_and_a_wish_is_refused(gpu_box: Path) -> None:
    recipe = load_recipe("resnet152_cifar10")
    mode, why = resolve._compile_mode(recipe, CUDA, several=False)
    assert mode is False
    assert "no C compiler" in why
    with pytest.raises(MissingError, match="no C compiler") as caught:
        resolve._compile_mode(load_recipe("resnet152_cifar10", ["train.compile=true"]), CUDA, several=False)
    assert caught.value.exit_code == 4
    _add_compiler(gpu_box, "clang")
    assert resolve._compile_mode(recipe, CUDA, several=False) == ("default", None)


def test_synchronised_batch_norm_is_not_compiled(gpu_box: Path) -> None:
    _add_compiler(gpu_box, "clang")
    mode, why = resolve._compile_mode(
        load_recipe("resnet152_cifar10", ["train.sync_batchnorm=true"]), CUDA, several=True
    )
    assert (mode, why) == (False, "train.sync_batchnorm breaks compiled graphs")
    with pytest.raises(UsageError, match="breaks compiled graphs"):
        resolve._compile_mode(
            load_recipe("r18_small", ["train.sync_batchnorm=true", "train.compile=true"]), CUDA, several=True
        )


def test_the_reason_is_told_and_kept(gpu_box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        resolve, "_compile_mode", lambda recipe, device, several: (False, "there is no C compiler (gcc, clang)")
    )
    told: list[object] = []
    train, choices = resolve.resolve_train(
        load_recipe("r18_small"), torch.device("cpu"), num_classes=10, tell=told.append
    )
    assert train.compile is False
    assert choices["train.compile_why"] == "there is no C compiler (gcc, clang)"
    assert any(isinstance(each, Note) and "runs uncompiled: there is no C compiler" in each.message for each in told)
