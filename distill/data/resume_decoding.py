"""A decoding that may be stopped at any moment: what is done is written down, and the next one goes on behind it."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from distill.errors import DistillError
from distill.files import regular, write_json

__all__ = ["DecodingProgress"]

_FILE = "decoding.json"
_EVERY_S = 5.0


class Syncs(Protocol):
    """What is written to, as a whole or not: after ``sync`` it is on the disk."""

    def sync(self) -> None: ...


@dataclass
class DecodingProgress:
    """How far a decoding has come.

    Attributes:
        folder: What it fills.
        key: Of what it fills it with.
        done: So many images, in the order in which they are read, are behind it.
        bad: split -> row -> reason, of those that cannot be used.
    """

    folder: Path
    key: str
    done: int = 0
    bad: dict[str, dict[int, str]] = field(default_factory=dict)
    _at: float = field(default_factory=time.monotonic)

    @classmethod
    def resume(cls, folder: Path, key: str, sizes: Mapping[str, int]) -> DecodingProgress:
        """Where a stopped decoding of the same content left off; a folder of anything else is emptied.

        Args:
            sizes: The size of each file that a folder of this content has, by name.
        """
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            tree: dict[str, Any] = json.loads(regular(folder / _FILE).read_text())
            whole = all((folder / name).stat().st_size == size for name, size in sizes.items())
            bad = {str(name): {int(row): str(why) for row, why in rows} for name, rows in tree["bad"].items()}
            if tree["key"] == key and whole and isinstance(tree["done"], int) and tree["done"] >= 0:
                return cls(folder, key, tree["done"], bad)
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        return cls(folder, key)

    def save_every_few_seconds(self, done: int, bad: Mapping[str, Mapping[int, str]], files: Iterable[Syncs]) -> None:
        """Write down, now and then, how far it is."""
        if time.monotonic() - self._at >= _EVERY_S:
            self.save(done, bad, files)

    def save(self, done: int, bad: Mapping[str, Mapping[int, str]], files: Iterable[Syncs]) -> None:
        """Write down how far it is: first the pixels are on the disk, then the line that makes them count."""
        for file in files:
            file.sync()
        rows = {name: sorted(each.items()) for name, each in bad.items()}
        with contextlib.suppress(DistillError):  # a full disk: whoever writes pixels tells it
            write_json(self.folder / _FILE, {"key": self.key, "done": done, "bad": rows})
        self._at = time.monotonic()

    def remove(self) -> None:
        """Everything is decoded: nothing to go on with."""
        (self.folder / _FILE).unlink(missing_ok=True)
