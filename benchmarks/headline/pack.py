"""Gather what a measurement leaves into few, small files, fit to be taken from a machine that forgets."""

from __future__ import annotations

import shutil
import tarfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from benchmarks.headline.runs import say
from distill.runs import RunFolder
from distill.runs.checkpoints import MODEL_FILE, best_checkpoint

__all__ = ["PART_BYTES", "pack"]

PART_BYTES = 15_000_000
_ONE_AT_A_TIME = threading.Lock()
_KEPT = ("run.json", "recipe.yaml", "metrics.jsonl", "timing.jsonl", "run.log", "result.json")


def pack(work: Path, out: Path, students: Sequence[Path]) -> list[Path]:
    """Write to ``out``: the results, the first student's weights in half precision, the bank in parts.

    Args:
        students: Finished runs in the order of the protocol. The first is seed 0 of the first taught network: chosen
            before anything was measured, not by its score on the test set.
    """
    with _ONE_AT_A_TIME:  # a deadline may pass while a stage is being packed
        return _packed(work, out, students)


def _packed(work: Path, out: Path, students: Sequence[Path]) -> list[Path]:
    out.mkdir(parents=True, exist_ok=True)
    written = [_results(work, out / "results.tar.gz")]
    written += [
        _copied(work / name, out / name) for name in ("headline.json", "teacher.json") if (work / name).exists()
    ]
    if students:
        written.append(_half(RunFolder(students[0]), out / "student.safetensors"))
    banks = sorted(work.glob("runs/*/[0-9]*/banks/*"), key=_size)
    if banks:  # the largest: others are of side measurements
        written += _bank_parts(banks[-1], work, out)
    for path in written:
        say(f"packed {path}: {path.stat().st_size / 1e6:.1f} MB")
    return written


def _copied(source: Path, target: Path) -> Path:
    shutil.copyfile(source, target)
    return target


def _results(work: Path, target: Path) -> Path:
    with tarfile.open(target, "w:gz") as archive:
        for path in _small_files(work):
            archive.add(path, arcname=str(path.relative_to(work)))
    return target


def _small_files(work: Path) -> Iterator[Path]:
    yield from (path for path in sorted(work.iterdir()) if path.is_file())
    for run in sorted(work.glob("*/*/[0-9]*")):
        yield from (run / name for name in _KEPT if (run / name).exists())
        yield from sorted(run.glob("plots/*"))
        yield from sorted(run.glob("evaluation/*.json"))


def _half(run: RunFolder, target: Path) -> Path:
    state = load_file(best_checkpoint(run.checkpoints) / MODEL_FILE)
    half = {name: tensor.half() if tensor.dtype == torch.float32 else tensor for name, tensor in state.items()}
    save_file(half, target, metadata={"run": f"{run.path.parent.name}/{run.path.name}"})
    return target


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _bank_parts(bank: Path, work: Path, out: Path) -> list[Path]:
    """The bank as archives of whole files, each small; unpacked over one another they are the bank again."""
    parts: list[list[Path]] = [[]]
    size = 0
    for path in sorted(file for file in bank.rglob("*") if file.is_file() and file.name != "lock.json"):
        padded = path.stat().st_size + 2048  # tar's header and padding
        if parts[-1] and size + padded > PART_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(path)
        size += padded
    written = []
    for number, files in enumerate(parts):
        target = out / f"bank-{bank.name[:8]}-{number}.tar"
        with tarfile.open(target, "w") as archive:
            for path in files:
                archive.add(path, arcname=str(path.relative_to(work)))
        written.append(target)
    return written
