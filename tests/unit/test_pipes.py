"""Regular files only: a pipe in a file's place is refused, and nothing waits for somebody to write into it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from distill.errors import DistillError

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")


# A process, not a thread: some open a file without letting go of the interpreter's lock.
_RELEASE = 'sleep 10; while :; do : > "$0"; : > "$1"; sleep 0.1; done'


@pytest.fixture
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], Path]]:
    """``pipe(path)`` puts a pipe there. Whoever waits for a writer is let go after a while, and fails the test."""
    mark = tmp_path_factory.mktemp("released") / "mark"
    writers: list[subprocess.Popen[bytes]] = []

    def make(path: Path) -> Path:
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        writers.append(subprocess.Popen(["sh", "-c", _RELEASE, str(path), str(mark)], start_new_session=True))
        return path

    yield make
    for writer in writers:
        os.killpg(writer.pid, signal.SIGKILL)
        writer.wait()
    assert not mark.exists(), "somebody waited for a writer"


def test_the_fixture_finds_who_waits(tmp_path: Path, pipe) -> None:
    """Its readers would be let go by a writer that comes and goes."""
    path = pipe(tmp_path / "pipe")
    threading.Timer(0.2, lambda: os.close(os.open(path, os.O_WRONLY))).start()
    assert path.read_bytes() == b""


def test_weights(tmp_path: Path, pipe) -> None:
    from distill.models import build_model
    from distill.recipe.model_specs import TimmModel

    file = pipe(tmp_path / "weights.safetensors")
    spec = TimmModel(source="timm", name="resnet18", stem="cifar", weights=str(file), input_size=32)
    with pytest.raises(DistillError, match=r"is not a readable safetensors file: not a regular file(\n|$)"):
        build_model(spec, num_classes=10)


def test_a_recipe_that_nobody_writes(tmp_path: Path, pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    from distill.recipe import load, load_recipe

    monkeypatch.setattr(load, "_PIPE_S", 0.1)
    with pytest.raises(DistillError, match=r"cannot be read: a pipe that nobody has written into for 0\.1 s"):
        load_recipe(pipe(tmp_path / "r.yaml"))


def test_a_recipe_that_somebody_writes(tmp_path: Path, pipe) -> None:
    """As a shell's ``<(...)``."""
    from distill.recipe import bundled_recipes, load_recipe

    text = bundled_recipes()["quickstart_scratch"].read_bytes()
    file = pipe(tmp_path / "r.yaml")
    threading.Timer(0.2, file.write_bytes, [text]).start()
    assert load_recipe(file).name == "quickstart_scratch"


@pytest.mark.parametrize("name", ["model.safetensors", "resume.pt", "meta.json"])
def test_a_checkpoint(name: str, tmp_path: Path, pipe) -> None:
    import torch

    from distill.runs.checkpoints import load_checkpoint, save_checkpoint

    state = {"weight": torch.zeros(2)}
    path = save_checkpoint(tmp_path, epoch=1, step=0, model_state=state, resume_state={"epoch": 1}, meta={})
    pipe(path / name)
    with pytest.raises(DistillError, match=name):
        load_checkpoint(path).load_resume()


@pytest.mark.parametrize("name", ["model.safetensors", "resume.pt"])
def test_a_checkpoints_files_by_themselves(name: str, tmp_path: Path, pipe) -> None:
    from distill.runs.checkpoints import tensors

    read = tensors.read_model if name == "model.safetensors" else tensors.read_resume
    with pytest.raises(OSError, match="not a regular file"):
        read(pipe(tmp_path / name))


@pytest.mark.parametrize("name", ["meta.json", "images_train.npy", "labels_train.npy"])
def test_decoded_images_are_made_again(name: str, tmp_path: Path, pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    from distill.data.array_cache import ArrayWriter, open_or_build, peek_facts
    from distill.events import silent

    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path))
    made = []

    def build(aside: Path) -> dict[str, int]:
        made.append(1)
        with ArrayWriter(aside, "train", np.zeros(2, dtype=np.int64), 4) as writer:
            writer.write(0, np.full((2, 3, 4, 4), len(made), dtype=np.uint8))
        return {"made": len(made)}

    open_or_build("key", build, silent)
    pipe(tmp_path / "arrays" / "key" / name)
    assert peek_facts("key") in (None, {"made": 1})
    assert open_or_build("key", build, silent).facts == {"made": 2}


def test_an_archive(tmp_path: Path, pipe) -> None:
    from distill.data.archive import list_archive
    from distill.events import silent

    with pytest.raises(DistillError, match="not a regular file"):
        list_archive(pipe(tmp_path / "pets.tar"), silent)


def test_an_official_file(tmp_path: Path, pipe) -> None:
    from distill.data.cifar import _unpickle

    with pytest.raises(DistillError, match="not a regular file"):
        _unpickle(pipe(tmp_path / "data_batch_1"), "")


@pytest.mark.parametrize("name", ["run.json", "recipe.yaml", "metrics.jsonl", "timing.jsonl", "result.json"])
def test_a_runs_files(name: str, tmp_path: Path, pipe) -> None:
    from distill.runs import RunFolder

    run = RunFolder(tmp_path)
    pipe(tmp_path / name)
    read = {
        "run.json": run.read_info,
        "recipe.yaml": run.recipe,
        "metrics.jsonl": run.metrics,
        "timing.jsonl": run.timing,
        "result.json": run.result,
    }[name]
    with pytest.raises(DistillError, match=f"{name}: not a"):
        read()


@pytest.mark.parametrize("name", ["run.log", "metrics.jsonl"])
def test_a_journal_is_not_written_into_a_pipe(name: str, tmp_path: Path, pipe) -> None:
    from distill.runs import RunFolder

    run = RunFolder(tmp_path)
    pipe(tmp_path / name)
    if name == "run.log":
        run.log("words that are lost")
    else:
        with pytest.raises(DistillError, match=name):
            run.append_metrics({"epoch": 1})


def test_a_bank(tmp_path: Path, pipe) -> None:
    from distill.teaching.bank import Bank

    pipe(tmp_path / "bank.json")
    with pytest.raises(DistillError, match="is not a bank"):
        Bank.read(tmp_path)


def test_pictures_to_predict(tmp_path: Path, pipe) -> None:
    from distill.pipeline.predict import BadFile, _decode

    found = _decode(str(pipe(tmp_path / "cat.png")), (8,))
    assert isinstance(found, BadFile)
    assert found.reason == "not a regular file"
