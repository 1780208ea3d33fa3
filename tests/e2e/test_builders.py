"""Several processes that know nothing of each other build one bank: each takes the files that nobody is at."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.data.splits import load_splits
from distill.errors import RunError
from distill.events import Note, StageProgress
from distill.files import write_atomically
from distill.models.trained import load_trained
from distill.pipeline import Options, RunResult
from distill.pipeline.banks import build_bank
from distill.recipe import Recipe, dump_recipe
from distill.runs import Lock, RunFolder
from distill.teaching import bank_info
from distill.teaching.bank import Bank
from distill.teaching.build import fill_bank, new_bank
from distill.teaching.identity import identity_of
from distill.teaching.key import bank_key
from distill.teaching.pieces import Chunk, ChunkQueue
from distill.teaching.remove import remove_bank

HERE = Path(__file__).parent
VIEWS, FILES = 3, 9  # 135 images, 50 a file
Start = Callable[..., subprocess.Popen]


@pytest.fixture(autouse=True)
def _small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bank_info, "_CHUNK_BYTES", 256 + 20 * 50)


@pytest.fixture
def taught(student_recipe: Callable[..., Recipe]) -> Recipe:
    return student_recipe("augment.view_seed=77", "augment.crop_padding=2", "teacher.logits_dtype=float16")


@pytest.fixture
def start(taught: Recipe, teacher_run: RunResult, tmp_path: Path) -> Iterator[Start]:
    """Starts builders; none outlives the test."""
    write_atomically(tmp_path / "taught.yaml", dump_recipe(taught))
    begun: list[subprocess.Popen] = []

    def start_one(bank: Path, stands: str = "") -> subprocess.Popen:
        command = [sys.executable, str(HERE / "building.py"), str(tmp_path / "taught.yaml"), str(teacher_run.run)]
        pipe = subprocess.PIPE
        begun.append(subprocess.Popen([*command, str(bank), str(VIEWS), stands], stdout=pipe, stderr=pipe, text=True))
        return begun[-1]

    yield start_one
    for process in begun:
        process.kill()
        process.communicate()


@pytest.fixture
def whole(taught: Recipe, teacher_run: RunResult, tmp_path: Path) -> Bank:
    """What one process builds alone."""
    options = Options(runs_dir=tmp_path / "runs", device="cpu", threads=1)
    row = build_bank(taught, teacher=str(teacher_run.run), views=VIEWS, path=tmp_path / "whole", options=options)
    return Bank.open(Path(row.path))


def _is_the_same(bank: Path, whole: Bank) -> bool:
    found = Bank.open(bank)
    assert found.damaged_files() == []
    assert (found.info.begun, found.info.begun_plans) == ({}, {})
    assert [path.name for path in bank.rglob("*.lock")] == []
    same = (found.info.checksums, found.info.plans) == (whole.info.checksums, whole.info.plans)
    return same and found.info.views == VIEWS


@pytest.mark.slow
def test_builders_share_the_files_and_write_the_bytes_of_one(start: Start, whole: Bank, tmp_path: Path) -> None:
    builders = [start(tmp_path / "bank") for _ in range(2)]
    stored = []
    for builder in builders:
        out, err = builder.communicate(timeout=250)
        assert builder.returncode == 0, err
        stored.append(int(out))
    assert sum(stored) == FILES
    assert _is_the_same(tmp_path / "bank", whole)


def test_what_a_killed_builder_was_at_is_taken_over(start: Start, whole: Bank, tmp_path: Path) -> None:
    killed = start(tmp_path / "bank", str(tmp_path / "stands"))
    for _ in range(6000):
        if (tmp_path / "stands").exists():
            break
        assert killed.poll() is None, killed.communicate()[1]
        time.sleep(0.02)
    other = start(tmp_path / "bank")
    for _ in range(6000):  # it does all but the file that the first one is at, and waits for that
        if len(Bank.read(tmp_path / "bank").info.begun) == FILES - 1:
            break
        assert other.poll() is None, other.communicate()[1]
        time.sleep(0.02)
    assert Bank.read(tmp_path / "bank").info.views == 0
    with pytest.raises(RunError, match="in use by process"):
        remove_bank(tmp_path / "bank")
    killed.kill()
    out, err = other.communicate(timeout=250)
    assert (other.returncode, out.strip()) == (0, str(FILES)), err
    assert _is_the_same(tmp_path / "bank", whole)


def test_a_build_goes_on_within_a_view(taught: Recipe, teacher_run: RunResult, whole: Bank, tmp_path: Path) -> None:
    teacher, splits = load_trained(RunFolder(teacher_run.run), device=torch.device("cpu")), load_splits(taught.data)
    bank = new_bank(tmp_path / "bank", bank_key(taught, splits, identity_of(teacher)), splits, taught, teacher.device)
    asked = []
    for event in fill_bank(bank, teacher, splits, taught, views=VIEWS):
        asked += [event.done] if isinstance(event, StageProgress) and event.stage == "asking the teacher" else []
        if asked and asked[-1] > 100:
            break  # in the last file of the first view
    assert sorted(Bank.read(bank.path).info.begun) == ["views/00000-000.npy", "views/00000-001.npy"]
    again = Bank.open(bank.path)
    seen = [each for each in fill_bank(again, teacher, splits, taught, views=VIEWS) if isinstance(each, StageProgress)]
    done = [event.done for event in seen if event.stage == "asking the teacher"]
    assert (done[0], done[-1]) == (135, VIEWS * 135)
    assert _is_the_same(bank.path, whole)


def test_who_waits_for_others_says_so(taught: Recipe, teacher_run: RunResult, tmp_path: Path) -> None:
    teacher, splits = load_trained(RunFolder(teacher_run.run), device=torch.device("cpu")), load_splits(taught.data)
    bank = new_bank(tmp_path / "bank", bank_key(taught, splits, identity_of(teacher)), splits, taught, teacher.device)
    theirs = Lock(bank.path / "views" / "00000-001.npy.lock", subject="theirs")
    theirs.acquire()
    told = []
    for event in fill_bank(bank, teacher, splits, taught, views=1):
        if isinstance(event, Note) and "waiting" in event.message:
            told.append(event.message)
            theirs.release()
    assert told == [f"{bank.path}: other processes are at the last 1 file; waiting"]
    assert Bank.read(bank.path).info.views == 1


def test_what_others_are_at_is_passed_by_without_a_try(
    taught: Recipe, teacher_run: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A try at a lock that is held waits half a second; with many builders each would wait for all the others."""
    teacher, splits = load_trained(RunFolder(teacher_run.run), device=torch.device("cpu")), load_splits(taught.data)
    bank = new_bank(tmp_path / "bank", bank_key(taught, splits, identity_of(teacher)), splits, taught, teacher.device)
    tried: list[str] = []
    acquire = Lock.acquire

    def tells(lock: Lock) -> None:
        tried.append(lock.path.name)
        acquire(lock)

    with Lock(bank.path / "views" / "00000-000.npy.lock", subject="theirs"):
        monkeypatch.setattr(Lock, "acquire", tells)
        bank.put(0, 1, np.ones((50, 10), np.float16), "plan 0")
        pieces, tried[:] = ChunkQueue(bank, VIEWS), []
        for piece in (Chunk(0, 2, 100, 135, behind=50), Chunk(1, 0, 0, 50, behind=50 + 35)):
            with pytest.raises(StopIteration) as taken:
                next(pieces.take())
            assert taken.value.value == piece
            bank.put(piece.number, piece.part, np.ones((piece.end - piece.start, 10), np.float16), "plan")
            pieces.let_go()
    assert [name for name in tried if name.startswith("0000")] == ["00000-002.npy.lock", "00001-000.npy.lock"]


def test_a_view_counts_when_all_before_it_do(tmp_path: Path, taught: Recipe, teacher_run: RunResult) -> None:
    teacher, splits = load_trained(RunFolder(teacher_run.run), device=torch.device("cpu")), load_splits(taught.data)
    bank = new_bank(tmp_path / "bank", bank_key(taught, splits, identity_of(teacher)), splits, taught, teacher.device)
    rows = np.ones((50, 10), np.float16)
    for number, part in ((1, 0), (1, 2), (1, 1), (0, 1), (0, 2)):
        bank.put(number, part, rows[: 35 if part == 2 else 50], f"plan {number}")
        assert Bank.read(bank.path).info.views == 0
    bank.put(0, 1, rows * 2, "another's")  # who was taken over, and comes back
    assert Bank.read(bank.path).damaged_files() == []
    bank.put(0, 0, rows, "plan 0")
    info = Bank.open(bank.path).info
    assert (info.views, info.plans, info.begun) == (2, ("plan 0", "plan 1"), {})
    assert (Bank.open(bank.path).view(0) == 1).all()
