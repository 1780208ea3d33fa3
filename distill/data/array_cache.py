"""Decoded images kept on disk: built once, whole or absent, checked whenever they are opened.

An entry is a folder ``arrays/<key>/`` with one ``.npy`` of images and one of labels for each split, and a
``meta.json`` that holds their checksums and what the loader wants to remember. It is built aside and renamed, so that
processes which build the same entry at once all end well: the first to finish wins and the others read its entry.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.atomic_folder import atomic_folder, remove_abandoned, resumable_folder, resumable_path
from distill.data.images import Split
from distill.errors import MissingError
from distill.events import StageProgress, Tell
from distill.files import expanded, regular, save_array

__all__ = [
    "ArrayWriter",
    "CacheEntry",
    "array_key",
    "arrays_folder",
    "begun_bytes",
    "cache_folder",
    "images_file",
    "is_kept",
    "move_away",
    "open_or_build",
    "peek_facts",
    "read_split",
    "require_space",
    "write_labels",
]

_VERSION = 3  # raise it whenever the same file would decode to other pixels
_HASH_BYTES = 32 << 20
_STALE_SECONDS = 24 * 3600
_OCCUPIED = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EACCES}


@dataclass(frozen=True, eq=False)
class CacheEntry:
    """An opened entry: the base split of every stored name, and the loader's facts."""

    splits: Mapping[str, Split]
    facts: Mapping[str, Any]


class ArrayWriter:
    """Fills one split of an entry, in any order of rows, in plain writes.

    A memory map would be shorter, but a full disk then kills the process with SIGBUS instead of raising.

    Args:
        folder: The entry under construction, as handed to ``build``.
        name: The split.
        labels: int64 label of every row.
        image_size: Pixels.
        go_on: Keep the rows that are in the file already, whose size was looked at.
    """

    def __init__(self, folder: Path, name: str, labels: np.ndarray, image_size: int, *, go_on: bool = False) -> None:
        header = _header(len(labels), image_size)
        self._row_bytes = 3 * image_size * image_size
        self._offset = len(header)
        with _explain_write_errors(folder):
            write_labels(folder, name, labels)
            self._file = open(folder / f"images_{name}.npy", "rb+" if go_on else "wb")  # noqa: SIM115 - see __exit__
            self._file.write(header)
            self._file.truncate(self._offset + len(labels) * self._row_bytes)
        self._folder = folder

    def write(self, row: int, block: np.ndarray) -> None:
        """Store ``block``, uint8 ``(k, 3, S, S)``, at rows ``row`` to ``row + k``."""
        assert block.dtype == np.uint8
        with _explain_write_errors(self._folder):
            self._file.seek(self._offset + row * self._row_bytes)
            self._file.write(np.ascontiguousarray(block).data)

    def sync(self) -> None:
        """Wait until what was written is on the disk."""
        with _explain_write_errors(self._folder):
            self._file.flush()
            os.fsync(self._file.fileno())

    def __enter__(self) -> ArrayWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        with _explain_write_errors(self._folder):
            self._file.close()


def images_file(name: str, count: int, image_size: int) -> tuple[str, int]:
    """The file that holds the images of a split, and its size in bytes."""
    return f"images_{name}.npy", len(_header(count, image_size)) + count * 3 * image_size * image_size


def _header(count: int, image_size: int) -> bytes:
    content = io.BytesIO()
    shape = (count, 3, image_size, image_size)
    np.lib.format.write_array_header_1_0(content, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return content.getvalue()


def write_labels(folder: Path, name: str, labels: np.ndarray) -> None:
    """Store the labels of a split under construction, in the place of those that it was begun with."""
    with _explain_write_errors(folder):
        save_array(folder / f"labels_{name}.npy", np.asarray(labels, dtype=np.int64))


def cache_folder() -> Path:
    """Where distill keeps what it can make again: ``$DISTILL_CACHE``, by default ``~/.cache/distill``.

    Raises:
        MissingError: There is no such home folder, as in a container for a user whom nobody entered.
    """
    folder = expanded(os.environ.get("DISTILL_CACHE") or "~/.cache/distill")
    if str(folder).startswith("~"):
        raise MissingError(f"{folder}: there is no such home folder", hint="name a folder: DISTILL_CACHE=DIR")
    return folder


def arrays_folder() -> Path:
    """Where decoded images are kept."""
    return cache_folder() / "arrays"


def array_key(*parts: Any) -> str:
    """The name of an entry: hex sha256 over JSON-able ``parts`` and the version of decoding."""
    return hashlib.sha256(json.dumps([_VERSION, *parts]).encode()).hexdigest()


def open_or_build(
    key: str, build: Callable[[Path], Mapping[str, Any]], tell: Tell, *, place: str | None = None
) -> CacheEntry:
    """Open the entry of ``key``; where it is absent or damaged, let ``build`` make it.

    Args:
        key: From :func:`array_key`.
        build: Fills an empty folder through :class:`ArrayWriter` and returns JSON-able facts to remember.
        tell: Told about verification.
        place: The name of the folder that a stopped ``build`` leaves and the next one is handed as it was left; of
            several processes one builds, the others wait. None: nothing is left, and all build.

    Raises:
        MissingError: The cache cannot be written.
    """
    folder = arrays_folder() / key
    entry = _open(folder, tell)
    if entry is not None:
        return entry
    with _atomic_folder(folder) if place is None else _resumable_folder(folder.parent, place, tell) as aside:
        if place is not None and (entry := _open(folder, tell)) is not None:  # whoever was waited for made it
            shutil.rmtree(aside, ignore_errors=True)
            return entry
        facts = build(aside)
        with _explain_write_errors(aside):
            _seal(aside, facts, tell)
            _install(aside, folder, tell)
    entry = _open(folder, tell)
    if entry is None:
        raise MissingError(f"{folder}: decoded images were damaged right after they were written", hint=_HINT)
    return entry


def peek_facts(key: str) -> Mapping[str, Any] | None:
    """What the loader remembered in an entry, its arrays unread; None where there is none."""
    try:
        return dict(json.loads(regular(arrays_folder() / key / "meta.json").read_text())["facts"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_kept(key: str) -> bool:
    """Whether there is a finished entry, sound or not: it takes no more room, however little the disk says it takes."""
    return (arrays_folder() / key / "meta.json").is_file()


def begun_bytes(place: str) -> int:
    """What a stopped build of this place takes on the disk: a file that was only made as long as it will be is none."""
    with contextlib.suppress(OSError):
        each = [path.stat() for path in resumable_path(arrays_folder(), place).iterdir()]
        return sum(status.st_blocks * 512 if hasattr(status, "st_blocks") else status.st_size for status in each)
    return 0


def read_split(folder: Path, name: str) -> Split:
    """A split in a folder under construction, unchecked."""
    images, labels = _read_arrays(folder, name)
    return Split(images, labels)


def require_space(folder: Path, nbytes: int) -> None:
    """Refuse to start what will not fit on the disk of ``folder``.

    Raises:
        MissingError: Fewer than ``nbytes`` bytes are free.
    """
    free = shutil.disk_usage(folder).free
    if free < nbytes:
        raise MissingError(
            f"decoded images take {nbytes / 1e9:.1f} GB and {arrays_folder()} has {free / 1e9:.1f} GB free", hint=_HINT
        )


_HINT = "keep decoded images elsewhere: export DISTILL_CACHE=/a/folder/with/space"


@contextlib.contextmanager
def _explain_write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise MissingError(f"cannot keep decoded images in {path.parent}: {reason}", hint=_HINT) from error


@contextlib.contextmanager
def _atomic_folder(folder: Path) -> Iterator[Path]:
    """An empty folder beside ``folder``, removed on the way out unless it was renamed."""
    with contextlib.ExitStack() as stack:
        with _explain_write_errors(folder):
            aside = stack.enter_context(atomic_folder(folder))
            _remove_leftovers(folder.parent)
        yield aside


@contextlib.contextmanager
def _resumable_folder(arrays: Path, name: str, tell: Tell) -> Iterator[Path]:
    with contextlib.ExitStack() as stack:
        with _explain_write_errors(arrays / name):
            aside = stack.enter_context(resumable_folder(arrays, name, tell))
            _remove_leftovers(arrays)
            remove_abandoned(arrays)
        yield aside


def _remove_leftovers(arrays: Path) -> None:
    """Drop what no lock tells about, a day after it was left behind."""
    for folder in [*arrays.glob(".*.partial"), *arrays.glob(".*.damaged")]:
        with contextlib.suppress(OSError):
            newest = max(path.stat().st_mtime for path in [folder, *folder.iterdir()])
            if time.time() - newest > _STALE_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


def _seal(aside: Path, facts: Mapping[str, Any], tell: Tell) -> None:
    names = sorted(path.stem.removeprefix("images_") for path in aside.glob("images_*.npy"))
    arrays = {}
    for name in names:
        images, labels = _read_arrays(aside, name)
        arrays[name] = {
            "shape": list(images.shape),
            "images": _digest(images, "check", tell),
            "labels": hashlib.sha256(labels.data).hexdigest(),
        }
    # Reading an entry costs nothing new where it is damaged, so nothing is synced: a checksum tells.
    (aside / "meta.json").write_text(json.dumps({"arrays": arrays, "facts": dict(facts)}))


def _install(aside: Path, folder: Path, tell: Tell) -> None:
    """Rename ``aside`` to ``folder``, unless another process put a sound entry there meanwhile."""
    for attempt in range(5):
        try:
            os.rename(aside, folder)
            return
        except OSError as error:
            if error.errno not in _OCCUPIED or attempt == 4:
                raise
        if _open(folder, tell) is not None:
            return
        with contextlib.suppress(FileNotFoundError):  # another process moved it first
            shutil.rmtree(move_away(folder), ignore_errors=True)


def move_away(folder: Path) -> Path:
    """An entry under a name that no one opens, to be deleted: what is left of it a day later goes by itself.

    Raises:
        OSError: It is gone, or cannot be renamed.
    """
    away = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}.damaged")
    os.rename(folder, away)
    return away


def _open(folder: Path, tell: Tell) -> CacheEntry | None:
    """The entry in ``folder``, or None where it is absent or differs from its checksums in any way."""
    try:
        meta = json.loads(regular(folder / "meta.json").read_text())
        opened = {name: _open_split(folder, name, record, tell) for name, record in meta["arrays"].items()}
        facts = dict(meta["facts"])
    except Exception:  # a damaged header brings about any: TokenError, SyntaxError, MemoryError
        return None
    splits = {name: split for name, split in opened.items() if split is not None}
    return CacheEntry(splits, facts) if len(splits) == len(opened) else None


def _open_split(folder: Path, name: str, record: Mapping[str, Any], tell: Tell) -> Split | None:
    images, labels = _read_arrays(folder, name)
    sound = (
        images.dtype == np.uint8
        and labels.dtype == np.int64
        and list(images.shape) == record["shape"]
        and labels.shape == images.shape[:1]
        and hashlib.sha256(labels.data).hexdigest() == record["labels"]
        and _digest(images, "check", tell) == record["images"]
    )
    return Split(images, labels, digest=record["images"]) if sound else None


def _read_arrays(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    images = np.load(regular(folder / f"images_{name}.npy"), mmap_mode="r", allow_pickle=False)
    return images, np.load(regular(folder / f"labels_{name}.npy"), allow_pickle=False)


def _digest(images: np.ndarray, stage: str, tell: Tell) -> str:
    """Hex sha256 of the pixels of a C-ordered array, the same as :func:`distill.data.images.pixel_digest`."""
    flat = images.reshape(-1)
    digest = hashlib.sha256()
    for start in range(0, flat.size, _HASH_BYTES):
        digest.update(flat[start : start + _HASH_BYTES].data)
        tell(StageProgress(stage, min(start + _HASH_BYTES, flat.size), flat.size))
    return digest.hexdigest()
