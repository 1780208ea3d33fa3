"""A bank: a teacher's logits for planned views, on disk, memory-mapped, checksummed, fit to travel.

```text
<bank>/bank.json                    the key, the teacher, the classes, a checksum for every file
<bank>/views/00000-000.npy ...      view 0, images 0 and on: (images, classes), at most 15 MB each
<bank>/test_logits.npy              the teacher on the test set, float32
```
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from distill.errors import MissingError, RunError, UsageError
from distill.files import sha256_file, write_json, write_with
from distill.runs import Lock
from distill.teaching.key import BankKey

__all__ = ["Bank", "BankInfo", "chunk_bounds"]

_CHUNK_BYTES = 15_000_000
_FORMAT = 1
_PATIENCE_S = 24 * 3600.0


@dataclass(frozen=True)
class BankInfo:
    """What ``bank.json`` says.

    Attributes:
        images: N, how many training images each view holds.
        views: How many views are complete, counted from 0.
        teacher: Its name, recipe, parameters, GMACs, size, latency and test accuracy.
        checksums: sha256 of each file, by its path inside the bank.
        plans: Checksum of each view's plan.
    """

    key: BankKey
    images: int
    classes: tuple[str, ...]
    views: int = 0
    teacher: dict[str, Any] = field(default_factory=dict)
    checksums: dict[str, str] = field(default_factory=dict)
    plans: tuple[str, ...] = ()

    @property
    def view_bytes(self) -> int:
        """Bytes of one view."""
        return self.images * len(self.classes) * np.dtype(self.key.dtype).itemsize


def chunk_bounds(info: BankInfo) -> list[tuple[int, int]]:
    """Where a view is cut so that no file is over 15 MB: ``[(first image, end), ...]``."""
    row_bytes = max(info.view_bytes // max(info.images, 1), 1)
    step = max((_CHUNK_BYTES - 256) // row_bytes, 1)  # 256: the .npy header
    return [(start, min(start + step, info.images)) for start in range(0, info.images, step)]


class Bank:
    """An opened bank. Reading maps files; writing is whole files, then ``bank.json``."""

    def __init__(self, path: Path, info: BankInfo) -> None:
        self.path = path
        self.info = info

    @classmethod
    def create(cls, path: Path, info: BankInfo) -> Bank:
        """Begin an empty bank."""
        bank = cls(path, info)
        (path / "views").mkdir(parents=True, exist_ok=True)
        bank._write_info()
        return bank

    @classmethod
    def open(cls, path: Path) -> Bank:
        """Open a bank.

        Raises:
            MissingError: There is none.
            RunError: ``bank.json`` is damaged, or a file of it is missing or of the wrong shape.
        """
        file = path / "bank.json"
        if not file.is_file():
            raise MissingError(f"{path} is not a bank: no bank.json in it", hint="make one: distill cache build")
        try:
            document = json.loads(file.read_text())
            if document.pop("format") != _FORMAT:
                raise RunError(f"{file}: made by another version of distill", hint="build the bank again")
            document["key"] = BankKey(**document["key"])
            document |= {"classes": tuple(document["classes"]), "plans": tuple(document["plans"])}
            bank = cls(path, BankInfo(**document))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{file} is damaged: {error}", hint="distill cache clear, then build it again") from error
        bank._check_files()
        return bank

    def _check_files(self) -> None:
        for row in range(self.info.views):
            for part in range(len(chunk_bounds(self.info))):
                self.chunk(row, part)

    def require(self, key: BankKey, *, views: int, teachers_own: bool) -> None:
        """Refuse a bank that does not fit.

        Raises:
            UsageError: Names every part that differs.
        """
        differences = key.differences(self.info.key, teachers_own=teachers_own)
        if differences:
            raise UsageError(
                f"{self.path} does not fit this recipe: " + "; ".join(differences),
                hint="change the recipe, or build a bank for it: distill cache build --recipe R",
            )
        if self.info.views < views:
            raise UsageError(
                f"{self.path} holds {self.info.views} views, the recipe shows {views}",
                hint=f"--set augment.views={max(self.info.views, 1)}, or extend it: distill cache build --views {views}",
            )

    # Reading

    def chunk(self, row: int, part: int) -> np.ndarray:
        """One file, mapped: ``(images, classes)`` of the bank's dtype."""
        path = self.path / chunk_name(row, part)
        start, end = chunk_bounds(self.info)[part]
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise RunError(f"{path} is missing or damaged: {error}", hint=f"distill cache verify {self.path}") from error
        if array.shape != (end - start, len(self.info.classes)) or array.dtype != np.dtype(self.info.key.dtype):
            raise RunError(f"{path} is damaged: {array.dtype} {array.shape}", hint=f"distill cache verify {self.path}")
        return array

    def view(self, row: int) -> np.ndarray:
        """All images of one view: ``(N, C)``, mapped where it is one file."""
        parts = [self.chunk(row, part) for part in range(len(chunk_bounds(self.info)))]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def test_logits(self) -> np.ndarray | None:
        """The teacher's logits on the test set, float32 ``(M, C)``, or None where they were not stored."""
        path = self.path / "test_logits.npy"
        return np.load(path, allow_pickle=False) if path.is_file() else None

    def size_bytes(self) -> int:
        """Bytes on disk."""
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())

    def damaged_files(self) -> list[str]:
        """Files whose checksum is not what ``bank.json`` says (every file is read)."""
        return [
            name
            for name, checksum in self.info.checksums.items()
            if not (self.path / name).is_file() or sha256_file(self.path / name) != checksum
        ]

    # Writing

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the bank for this process; while another one builds it, wait."""
        with Lock(self.path / "lock.json", subject=str(self.path), wait_s=_PATIENCE_S):
            self.info = Bank.open(self.path).info  # the other one's views count
            yield

    def append_view(self, logits: np.ndarray, plan: str) -> None:
        """Store the next view, ``(N, C)``: its files first, then the line in ``bank.json`` that makes them count."""
        row = self.info.views
        assert logits.shape == (self.info.images, len(self.info.classes))
        checksums = dict(self.info.checksums)
        for part, (start, end) in enumerate(chunk_bounds(self.info)):
            name = chunk_name(row, part)
            checksums[name] = self._save(name, logits[start:end].astype(self.info.key.dtype))
        self.info = replace(self.info, views=row + 1, checksums=checksums, plans=(*self.info.plans, plan))
        self._write_info()

    def set_teacher(self, teacher: dict[str, Any], test_logits: np.ndarray) -> None:
        """Store what ``compare`` wants to know of the teacher."""
        checksum = self._save("test_logits.npy", test_logits.astype(np.float32))
        self.info = replace(
            self.info, teacher=teacher, checksums={**self.info.checksums, "test_logits.npy": checksum}
        )
        self._write_info()

    def drop_views(self, first: int) -> None:
        """Forget views from ``first`` on, so that they are built again."""
        keep = {name: c for name, c in self.info.checksums.items() if not _is_view_from(name, first)}
        self.info = replace(self.info, views=first, checksums=keep, plans=self.info.plans[:first])
        self._write_info()

    def _save(self, name: str, array: np.ndarray) -> str:
        path = self.path / name
        write_with(path, lambda aside: _save_array(aside, array))
        return sha256_file(path)

    def _write_info(self) -> None:
        write_json(self.path / "bank.json", {"format": _FORMAT} | asdict(self.info))


def chunk_name(row: int, part: int) -> str:
    """Path of one file inside the bank."""
    return f"views/{row:05d}-{part:03d}.npy"


def _is_view_from(name: str, first: int) -> bool:
    return name.startswith("views/") and int(name[6:11]) >= first


def _save_array(path: Path, array: np.ndarray) -> None:
    with open(path, "wb") as file:
        np.save(file, np.ascontiguousarray(array), allow_pickle=False)
