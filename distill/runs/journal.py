"""A file of JSON lines that grows by whole lines and forgives a half-written last one."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.errors import RunError
from distill.files import read_text, sync_folder, write_atomically, writing

__all__ = ["Journal", "append_bytes", "is_number"]

_RESTORE = "restore the file from a copy, or start the run anew"

_APPEND = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def append_bytes(path: Path, data: bytes, *, sync: bool) -> None:
    """Add whole lines at the end of a file, after cutting off a last line that a dying process left half-written.

    A link is refused: a run folder from elsewhere must not lead into another file. When the disk is full,
    the file is as it was.
    """
    is_new = not path.exists()
    handle = os.open(path, _APPEND, 0o666)
    try:
        end = _end_of_lines(handle)
        os.ftruncate(handle, end)
        try:
            _write_all(handle, data, end)
            if sync:
                os.fsync(handle)
        except OSError:
            os.ftruncate(handle, end)
            raise
    finally:
        os.close(handle)
    if sync and is_new:
        sync_folder(path.parent)


def _write_all(handle: int, data: bytes, offset: int) -> None:
    os.lseek(handle, offset, os.SEEK_SET)
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def _end_of_lines(handle: int) -> int:
    """Offset behind the last line end."""
    end = os.lseek(handle, 0, os.SEEK_END)
    while end > 0:
        start = max(0, end - 4096)
        os.lseek(handle, start, os.SEEK_SET)
        newline = os.read(handle, end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


@dataclass(frozen=True)
class Journal:
    """One JSON object a line; nothing is there before the first."""

    path: Path

    def append(self, entry: dict[str, Any]) -> None:
        """Add a line and wait until it is on the disk.

        Raises:
            RunError: A number is NaN or infinite, which JSON does not have.
            DistillError: The disk is full or the file cannot be written.
        """
        try:
            line = json.dumps(entry, allow_nan=False) + "\n"
        except ValueError as cause:
            raise RunError(f"{self.path}: not finite, not written: {entry}") from cause
        with writing(self.path):
            append_bytes(self.path, line.encode(), sync=True)

    def read(self) -> list[dict[str, Any]]:
        """Every whole line; a last one that was cut short is left out.

        Raises:
            RunError: The file is damaged before its last line, with the line's number.
        """
        return [entry for _, entry in self._lines()]

    def read_numbers(self) -> list[dict[str, Any]]:
        """The same where every value is a number, or null.

        Raises:
            RunError: One is not, with the line's number.
        """
        entries = self.read()
        for number, entry in enumerate(entries, start=1):
            for key, value in entry.items():
                if value is not None and not is_number(value):
                    raise RunError(f"{self.path}:{number}: damaged: {key} should be a number", hint=_RESTORE)
        return entries

    def truncate(self, kept: int) -> int:
        """Keep the first ``kept`` lines, byte for byte, and return how many there are now, at most ``kept``."""
        lines = self._lines()
        content = "".join(f"{line}\n" for line, _ in lines[:kept])
        if self.path.exists() and self.path.read_bytes() != content.encode():
            write_atomically(self.path, content)
        return min(kept, len(lines))

    def _lines(self) -> list[tuple[str, dict[str, Any]]]:
        if not self.path.exists():
            return []
        texts = self._text().split("\n")[:-1]  # what follows the last line end was never whole
        entries = []
        for number, text in enumerate(texts, start=1):
            entry = _parse(text)
            if entry is None and number < len(texts):
                raise RunError(
                    f"{self.path}:{number}: damaged: not a JSON object",
                    hint=_RESTORE,
                )
            if entry is not None:
                entries.append((text, entry))
        return entries

    def _text(self) -> str:
        try:
            return read_text(self.path)
        except RunError:
            if not self.path.is_file():
                raise
            data = self.path.read_bytes()  # the last line may be garbage after a power cut; the rest must be text
            complete = data[: data.rstrip(b"\n").rfind(b"\n") + 1]
            try:
                return complete.decode()
            except UnicodeDecodeError as cause:
                raise RunError(f"{self.path}: damaged: not UTF-8 text (byte {cause.start})") from cause


def is_number(value: Any) -> bool:
    """Whether a JSON value is a finite number: Python reads NaN and 1e999 too, and takes true for 1."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _parse(text: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None
