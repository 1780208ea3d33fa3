"""A bank: a teacher's logits for planned views, on disk, memory-mapped, checksummed, fit to travel.

Its files are in :mod:`distill.teaching.bank_files`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from distill.errors import DistillError, MissingError, RunError, UsageError
from distill.events import StageProgress, Tell, silent
from distill.files import (
    json_sha256,
    regular,
    remove_partials,
    save_array,
    sha256_file,
    write_json,
    write_with,
    writing,
)
from distill.runs import Lock, owner_is_dead
from distill.teaching.bank_files import INFO, LOCK, TEST_LOGITS, VIEWS, chunk_name, claims, is_answers, view_of
from distill.teaching.bank_info import BankInfo, TeacherRecord, chunk_bounds, completed
from distill.teaching.key import BankKey

__all__ = ["Bank"]

_FORMAT = 2
_PATIENCE_S = 24 * 3600.0


class Bank:
    """An opened bank. Reading maps files; writing is whole files, then ``bank.json``."""

    def __init__(self, path: Path, info: BankInfo) -> None:
        self.path = path
        self.info = info
        self._whole: set[str] = set()  # files whose bytes were compared with their checksums

    @classmethod
    def create(cls, path: Path, info: BankInfo) -> Bank:
        """Begin an empty bank, or open the one that another process has just begun there.

        Raises:
            DistillError: The folder cannot be written.
        """
        with writing(path):
            (path / VIEWS).mkdir(parents=True, exist_ok=True)
        with Lock(path / LOCK, subject=str(path), wait_s=_PATIENCE_S):
            if (path / INFO).is_file():
                return cls.read(path)
            bank = cls(path, info)
            bank._write_info()
            return bank

    @classmethod
    def open(cls, path: Path) -> Bank:
        """Open a bank.

        Raises:
            MissingError: There is none.
            RunError: ``bank.json`` is damaged, or a file of it is missing or of the wrong shape.
        """
        bank = cls.read(path)
        bank._check_files()
        return bank

    @classmethod
    def find(cls, path: Path) -> Bank | None:
        """The bank there, as :meth:`read` opens it; None where there is none.

        Raises:
            RunError: As :meth:`read`.
        """
        return cls.read(path) if (path / INFO).is_file() else None

    @classmethod
    def read(cls, path: Path) -> Bank:
        """Open a bank by its ``bank.json`` alone: its files may be damaged.

        Raises:
            MissingError: There is none.
            RunError: ``bank.json`` is damaged, or another version's.
        """
        file = path / INFO
        if not file.is_file():
            raise MissingError(f"{path} is not a bank: no {INFO} in it", hint="make one: distill cache build")
        try:
            document = json.loads(file.read_text())
            if (version := document.pop("format")) != _FORMAT:
                hint = f"distill cache clear {path}, then build it again"
                raise RunError(
                    f"{file} has format {str(version)[:20]}, and this version of distill reads {_FORMAT}", hint=hint
                )
            if document.pop("sha256") != json_sha256(document):
                raise ValueError("its bytes are not those that were written")
            document |= {"key": BankKey.from_json(document["key"]), "plans": tuple(document["plans"])}
            document["teacher"] = TeacherRecord.from_json(document["teacher"]) if document["teacher"] else None
            bank = cls(path, BankInfo(**document))
            bank._check_info()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            hint = f"distill cache clear {path}, then build it again"
            raise RunError(f"{file} is damaged: {error}", hint=hint) from error
        return bank

    def _check_info(self) -> None:
        info = self.info
        counts = isinstance(info.images, int) and isinstance(info.views, int) and info.images > 0 <= info.views
        if not (counts and len(info.plans) == info.views):
            raise ValueError("its images, views or plans make no sense")
        if not (isinstance(info.features, int) and (info.features > 0) is (info.key.features is not None)):
            raise ValueError("its features make no sense")
        if not all(isinstance(part, dict) for part in (info.data, info.runtime)):
            raise ValueError("its data or runtime make no sense")
        named = [*info.checksums.items(), *info.begun.items()]
        if not all(is_answers(name) and isinstance(checksum, str) for name, checksum in named):
            raise ValueError("it names files that no bank has")

    def _check_files(self) -> None:
        for number in range(self.info.views):
            for part in range(len(chunk_bounds(self.info))):
                self.chunk(number, part)

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
                hint=f"--set augment.views={max(self.info.views, 1)}, or more: distill cache build --views {views}",
            )

    # Reading

    def chunk(self, number: int, part: int) -> np.ndarray:
        """One file, mapped: ``(images, classes + features)`` of the bank's dtype."""
        path = self.path / chunk_name(number, part)
        start, end = chunk_bounds(self.info)[part]
        try:
            array = np.load(regular(path), mmap_mode="r", allow_pickle=False)
        except Exception as error:  # a damaged header brings about any: TokenError, SyntaxError, UnicodeDecodeError
            raise self._lost(path, error) from error
        if array.shape != (end - start, self.info.width) or array.dtype != np.dtype(self.info.key.dtype):
            raise RunError(f"{path} is damaged: {array.dtype} {array.shape}", hint=self._renewal)
        return array

    @property
    def _renewal(self) -> str:
        return (
            f"distill cache verify {self.path} lists what is damaged; to build it again: distill cache clear "
            f"{self.path}, then the same command (distill cache build, if the recipe names this folder)"
        )

    def _lost(self, path: Path, error: Exception | None = None) -> RunError:
        """What to say of a file that cannot be used: numpy's own words are about its memory map."""
        if not path.exists():
            return RunError(f"{path} is missing", hint=self._renewal)
        if isinstance(error, OSError) and error.strerror:
            return RunError(f"{path} cannot be read: {error.strerror}", hint=f"distill cache verify {self.path}")
        return RunError(f"{path} is damaged: its bytes are not those that were written", hint=self._renewal)

    def view(self, number: int) -> np.ndarray:
        """All images of one view: ``(N, C + D)``, logits and then features, mapped where it is one file.

        Raises:
            RunError: A file of it does not have the bytes that were written; each is read whole the first time.
        """
        parts = [self.part(number, part) for part in range(len(chunk_bounds(self.info)))]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def part(self, number: int, part: int) -> np.ndarray:
        """One file as :meth:`chunk`, its bytes compared with those that were written, the first time.

        Raises:
            RunError: They are others.
        """
        self._verify(chunk_name(number, part))
        return self.chunk(number, part)

    def _verify(self, name: str) -> None:
        if name in self._whole:
            return
        if not self._is_whole(name):
            raise self._lost(self.path / name)
        self._whole.add(name)

    def test_logits(self) -> np.ndarray | None:
        """The teacher's logits on the test set, float32 ``(M, C)``, or None where they were not stored.

        Raises:
            RunError: The file is damaged.
        """
        path = self.path / TEST_LOGITS
        if not path.is_file():
            return None
        self._verify(TEST_LOGITS)
        try:
            return np.load(path, allow_pickle=False)
        except Exception as error:  # as in chunk
            raise self._lost(path, error) from error

    def answers_sha256(self, views: int) -> str:
        """Hex sha256 of the answers to the first ``views`` views, from their files' checksums."""
        parts = range(len(chunk_bounds(self.info)))
        names = [chunk_name(number, part) for number in range(views) for part in parts]
        return json_sha256([self.info.checksums.get(name) for name in names])

    def files(self) -> list[str]:
        """The files a bank of this content has, by their paths inside it."""
        parts = range(len(chunk_bounds(self.info)))
        views = [chunk_name(number, part) for number in range(self.info.views) for part in parts]
        return views + ([TEST_LOGITS] if self.info.teacher else [])

    def damaged_files(self, tell: Tell = silent) -> list[str]:
        """Files that are missing, or whose checksum is not what ``bank.json`` says (every file is read).

        Args:
            tell: Told how many files are read, and how many there are.
        """
        names, damaged = self.files(), []
        for number, name in enumerate(names, start=1):
            if not self._is_whole(name):
                damaged.append(name)
            tell(StageProgress(f"reading {self.path.name}", number, len(names)))
        return damaged

    def not_finite(self, views: range | None = None) -> list[str]:
        """Files of these views (by default of all) that hold NaN or infinity: answers that nobody can learn from."""
        parts = range(len(chunk_bounds(self.info)))
        numbers = range(self.info.views) if views is None else views
        places = [(number, part) for number in numbers for part in parts]
        return [chunk_name(number, part) for number, part in places if not np.isfinite(self.chunk(number, part)).all()]

    def _is_whole(self, name: str) -> bool:
        path = self.path / name
        try:
            return path.is_file() and sha256_file(path) == self.info.checksums.get(name)
        except OSError:
            return False

    # Writing

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the bank for this process; while another one builds it, wait."""
        with self._held(_PATIENCE_S):
            self.renew()  # the other one's views count
            yield

    def renew(self) -> None:
        """Look again what is in it: other processes may be writing."""
        self.info = Bank.read(self.path).info

    @contextmanager
    def _held(self, wait_s: float) -> Iterator[None]:
        with Lock(self.path / LOCK, subject=str(self.path), wait_s=wait_s):
            for folder in (self.path, self.path / VIEWS):
                remove_partials(folder)
            yield

    def clear_dead(self) -> None:
        """Remove the locks of processes that died building it, and what those left half-written."""
        if owner_is_dead(self.path / LOCK):
            with suppress(DistillError), self._held(0.0):
                pass
        for claim in claims(self.path):
            if owner_is_dead(claim):
                with suppress(DistillError), Lock(claim, subject=str(claim)):
                    pass

    def put(self, number: int, part: int, answers: np.ndarray, plan: str) -> None:
        """Store a part of a view, ``(images, C + D)``: the file first, then the line in ``bank.json`` that counts it.

        With the last part of the first view that is not complete it is, and those behind it that only waited for it.
        """
        name, (start, end) = chunk_name(number, part), chunk_bounds(self.info)[part]
        assert answers.shape == (end - start, self.info.width)
        with self.writing():
            if number < self.info.views or name in self.info.begun:  # another process took it over, and was faster
                return
            checksum = self._save(name, answers.astype(self.info.key.dtype))
            begun, plans = {**self.info.begun, name: checksum}, {**self.info.begun_plans, str(number): plan}
            self.info = completed(replace(self.info, begun=begun, begun_plans=plans))
            self._write_info()

    def set_teacher(self, teacher: TeacherRecord, test_logits: np.ndarray) -> None:
        """Store what ``compare`` wants to know of the teacher."""
        with self.writing():
            checksum = self._save(TEST_LOGITS, test_logits.astype(np.float32))
            self.info = replace(self.info, teacher=teacher, checksums={**self.info.checksums, TEST_LOGITS: checksum})
            self._write_info()

    def drop(self, damaged: Sequence[str]) -> None:
        """Forget damaged files, and the views from the first of them on, so that the next build makes them again."""
        numbers = [number for name in damaged if (number := view_of(name)) is not None]
        if TEST_LOGITS in damaged:
            keep = {name: checksum for name, checksum in self.info.checksums.items() if name != TEST_LOGITS}
            self.info = replace(self.info, teacher=None, checksums=keep)
        self.drop_views(min(numbers, default=self.info.views))

    def drop_views(self, first: int) -> None:
        """Forget views from ``first`` on, so that they are built again."""
        numbers = {name: view_of(name) for name in self.info.checksums}
        keep = {n: c for n, c in self.info.checksums.items() if (number := numbers[n]) is None or number < first}
        plans = self.info.plans[:first]
        self.info = replace(self.info, views=first, checksums=keep, plans=plans, begun={}, begun_plans={})
        self._write_info()

    def _save(self, name: str, array: np.ndarray) -> str:
        path = self.path / name
        write_with(path, lambda aside: save_array(aside, np.ascontiguousarray(array)))
        return sha256_file(path)

    def _write_info(self) -> None:
        teacher = self.info.teacher
        document = asdict(self.info) | {"teacher": {} if teacher is None else teacher.to_json()}
        for name in ("begun", "begun_plans"):  # a bank whose views are complete says nothing of others
            if not document[name]:
                del document[name]
        write_json(self.path / INFO, {"format": _FORMAT} | document | {"sha256": json_sha256(document)})
