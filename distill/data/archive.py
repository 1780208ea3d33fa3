"""A data set inside a .tar, .tgz or .zip: listed and read in place, nothing is ever unpacked to disk.

Nothing in an archive is trusted: paths that lead out of it, links, devices and encrypted members are refused by name,
and what it may unpack to is bounded by its size.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Self, TypeVar, cast

from distill.data.decode import BadImageError
from distill.data.decode_pool import MAX_FILE_BYTES
from distill.data.layout import EXPECTED_LAYOUT, IMAGE_SUFFIXES, SPLIT_FOLDERS, RawListing, check_split_names, is_hidden
from distill.errors import DataError
from distill.events import StageProgress, Tell, silent
from distill.files import regular
from distill.text import plain

__all__ = ["ArchiveContent", "list_archive", "read_archive"]

T = TypeVar("T")

_FREE_BYTES = 1 << 30  # any archive may unpack to this much,
_MAX_RATIO = 100  # and beyond it to this many times its own size: images are compressed already
_BLOCK = 1 << 20
_DAMAGE = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, NotImplementedError,
    UnicodeError,
)  # fmt: skip


@dataclass(frozen=True)
class ArchiveContent:
    """A data set found in an archive; ``prefix`` is the folder above ``train/`` with a slash, or ''."""

    entries: RawListing
    prefix: str


@dataclass(frozen=True)
class _Member:
    """A file or folder in an archive, by the parts of its path; ``read`` works until the next member is asked for."""

    parts: tuple[str, ...]
    is_folder: bool
    size: int
    read: Callable[[], bytes]


def list_archive(path: Path, tell: Tell) -> ArchiveContent:
    """Find the data set in an archive, checking the name and kind of every member.

    Raises:
        DataError: The archive is damaged, hostile, encrypted, no archive, or has another layout.
    """
    members: dict[tuple[str, ...], bool] = {}  # parts -> is it a folder
    for member in _members(path, tell):
        if not member.is_folder and member.parts in members:
            raise DataError(f"{path} holds {_shown('/'.join(member.parts))} twice")
        members[member.parts] = member.is_folder
    prefix, bare = _prefix(path, members)
    entries = RawListing()
    if bare:
        entries.add_split("train", "")
    nested: set[tuple[str, ...]] = set()
    for parts, is_folder in members.items():
        inner = parts[len(prefix) :]
        if parts[: len(prefix)] != prefix or not inner or any(map(is_hidden, inner)):
            continue
        if bare:
            _note(entries, ("train", *inner), is_folder, nested)
        elif inner[0] in SPLIT_FOLDERS:
            entries.add_split(SPLIT_FOLDERS[inner[0]], inner[0])
            _note(entries, (SPLIT_FOLDERS[inner[0]], *inner[1:]), is_folder, nested)
    if bare:  # as of a folder: what lies beside the classes and holds no picture is none
        found = entries.splits["train"]
        entries.no_class += sorted(label for label, names in found.items() if not names)
        for label in entries.no_class:
            del found[label]
    entries.ignored += len(nested)
    return ArchiveContent(entries, "".join(f"{part}/" for part in prefix))


def read_archive(path: Path, wanted: Mapping[str, T]) -> Iterator[tuple[T, bytes | BadImageError]]:
    """The bytes of the wanted members, in the archive's order, or why one has none.

    Args:
        path: The archive.
        wanted: Path of a member -> what the caller knows it by.
    """
    for member in _members(path, silent):
        name = "/".join(member.parts)
        if name not in wanted or member.is_folder:
            continue
        if member.size > MAX_FILE_BYTES:
            yield wanted[name], BadImageError(f"larger than {MAX_FILE_BYTES >> 20} MB")
            continue
        yield wanted[name], _content(path, member)


def _content(path: Path, member: _Member) -> bytes | BadImageError:
    with _explain_damage(path):  # here too: the generator of members is not running now
        try:
            return member.read()
        except BadImageError as error:
            return error


def _note(entries: RawListing, inner: tuple[str, ...], is_folder: bool, nested: set[tuple[str, ...]]) -> None:
    """Sort one member, by its path below the data set's root."""
    if len(inner) > 3 or (len(inner) == 3 and is_folder):
        entries.add_class(inner[0], inner[1])
        nested.add(inner[:3])
    elif len(inner) == 3:
        entries.add_file(*inner)
    elif len(inner) == 2 and is_folder:
        entries.add_class(*inner)
    elif is_folder:
        entries.add_split(inner[0])
    else:
        entries.ignored += 1


def _prefix(path: Path, members: Mapping[tuple[str, ...], bool]) -> tuple[tuple[str, ...], bool]:
    """The folder above ``train/``, none or one; or above class folders, and then True."""
    if any(parts[0] == "train" for parts in members):
        _check_splits(path, members, ())
        return (), False
    above = sorted({parts[0] for parts in members if len(parts) > 1 and parts[1] == "train"})
    if len(above) > 1:
        raise DataError(f"{path} holds several data sets: {', '.join(map(_shown, above))}", hint=EXPECTED_LAYOUT)
    if above:
        _check_splits(path, members, (above[0],))
        return (above[0],), False
    pictures = [parts for parts, is_folder in members.items() if not is_folder and _is_picture(parts)]
    for prefix in ((), *sorted({parts[:1] for parts in pictures})):
        if len({parts[len(prefix)] for parts in pictures if _is_below(prefix, parts)}) > 1:
            _check_splits(path, members, prefix)
            return prefix, True
    _check_splits(path, members, ())
    raise DataError(f"{path} has no train/ folder and no class folders, at its top or one below", hint=EXPECTED_LAYOUT)


def _check_splits(path: Path, members: Mapping[tuple[str, ...], bool], prefix: tuple[str, ...]) -> None:
    """As of a folder: see :func:`check_split_names`."""

    def holds_classes(name: str) -> bool:
        inside = (*prefix, name)
        at = len(inside)
        below = [parts for parts in members if parts[:at] == inside]
        is_flat = any(len(parts) == at + 1 and _is_picture(parts) for parts in below)
        return not is_flat and bool(_folders(members, inside))

    where = f"{path}, {'/'.join(prefix)}/," if prefix else str(path)
    check_split_names(_folders(members, prefix), where, holds_classes=holds_classes)


def _folders(members: Mapping[tuple[str, ...], bool], prefix: tuple[str, ...]) -> set[str]:
    """Names of the folders right below the prefix."""
    at = len(prefix)
    below = (parts for parts, is_folder in members.items() if len(parts) > at + 1 or (len(parts) > at and is_folder))
    return {parts[at] for parts in below if parts[:at] == prefix and not is_hidden(parts[at])}


def _is_picture(parts: tuple[str, ...]) -> bool:
    return parts[-1].lower().endswith(IMAGE_SUFFIXES) and not any(map(is_hidden, parts))


def _is_below(prefix: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    """Whether these are a picture's parts in a class folder right below the prefix."""
    return parts[: len(prefix)] == prefix and len(parts) == len(prefix) + 2 and parts[len(prefix)] not in SPLIT_FOLDERS


def _members(path: Path, tell: Tell) -> Iterator[_Member]:
    with _explain_damage(path), open(regular(path), "rb") as file:
        magic = file.read(5)
        file.seek(0)
        if magic.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            yield from _zip_members(path, file, tell)
        elif (unpacked := _unpacked(magic, file)) is not None:
            with unpacked as stream:
                yield from _tar_members(path, _BoundedReader(path, file, stream, tell))
        elif tarfile.is_tarfile(file):
            file.seek(0)
            yield from _tar_members(path, _BoundedReader(path, file, file, tell))
        else:
            raise DataError(f"{path} is neither a folder nor an archive: .zip, .tar, .tar.gz, .tar.bz2, .tar.xz")


def _unpacked(magic: bytes, file: IO[bytes]) -> IO[bytes] | None:
    """The stream within a compressed file; None where nothing says that it is one."""
    if magic.startswith(b"\x1f\x8b"):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=file))
    if magic.startswith(b"BZh"):
        return cast("IO[bytes]", bz2.BZ2File(file))
    return cast("IO[bytes]", lzma.LZMAFile(file)) if magic.startswith(b"\xfd7zXZ") else None


@contextmanager
def _explain_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(f"{path} cannot be read, it may be damaged or half copied: {reason}") from error


def _tar_members(path: Path, stream: _BoundedReader) -> Iterator[_Member]:
    with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|", bufsize=_BLOCK, tarinfo=_StrictInfo) as tar:
        while (info := tar.next()) is not None:
            # tarfile would keep them all, and an archive may hold millions; typeshed does not know of them
            tar.members.clear()  # type: ignore[attr-defined]
            stream.member = info.name
            parts = _clean(path, info.name)
            if info.issym() or info.islnk():
                raise DataError(f"{path}: {_shown(info.name)} is a link; an archive must hold the files themselves")
            if not (info.isreg() or info.isdir()):
                raise DataError(f"{path}: {_shown(info.name)} is a device or another special file")
            if parts:
                yield _Member(parts, info.isdir(), info.size, partial(_read_tarred, tar, info))
    while stream.read(_BLOCK):  # the checksum is at the end
        pass


def _read_tarred(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    content = tar.extractfile(info)
    assert content is not None, "a regular file"
    return content.read()


class _StrictInfo(tarfile.TarInfo):
    """tarfile takes a damaged header, or none, for the end of the archive; only the end mark is one."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tar)
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":
                raise
            raise tarfile.ReadError(f"{error} at byte {tar.offset:,}") from error


def _zip_members(path: Path, file: IO[bytes], tell: Tell) -> Iterator[_Member]:
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
        left = _most_bytes(path)
        for done, info in enumerate(infos):
            parts = _clean(path, info.filename)
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind == stat.S_IFLNK:
                raise DataError(f"{path}: {_shown(info.filename)} is a link; an archive must hold the files themselves")
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise DataError(f"{path}: {_shown(info.filename)} is a device or another special file")
            if info.flag_bits & 0x1:
                raise DataError(f"{path}: {_shown(info.filename)} is encrypted", hint="pack it without a password")
            left -= info.file_size
            if left < 0:
                raise _bomb(path, info.filename)
            if parts:
                yield _Member(parts, info.is_dir(), info.file_size, partial(_read_zipped, archive, info))
            tell(StageProgress("list", done + 1, len(infos)))


def _read_zipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    try:
        return archive.read(info)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise BadImageError(f"damaged in the archive: {error}") from error


def _clean(path: Path, name: str) -> tuple[str, ...]:
    """The parts of a member's path, refused where they lead out of the archive."""
    forward = name.replace("\\", "/")
    if forward.startswith("/") or re.match(r"[A-Za-z]:/", forward):
        raise DataError(f"{path}: {_shown(name)} is an absolute path; the archive is not to be trusted")
    parts = tuple(part for part in forward.split("/") if part not in ("", "."))
    if ".." in parts:
        raise DataError(f"{path}: {_shown(name)} leads out of the archive; it is not to be trusted")
    return parts


class _BoundedReader:
    """What tarfile reads an archive through: no more than its size allows, telling how far it is."""

    def __init__(self, path: Path, file: IO[bytes], stream: IO[bytes], tell: Tell) -> None:
        self.member = "its first member"
        self._path, self._file, self._stream, self._tell = path, file, stream, tell
        self._size = path.stat().st_size
        self._left = _most_bytes(path)

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise _bomb(self._path, self.member)
        self._tell(StageProgress("list", min(self._file.tell(), self._size), self._size))
        return data


def _most_bytes(path: Path) -> int:
    return _FREE_BYTES + _MAX_RATIO * path.stat().st_size


def _bomb(path: Path, member: str) -> DataError:
    return DataError(
        f"{path} unpacks to more than {_most_bytes(path) / 1e9:.1f} GB, at {_shown(member)}: a decompression bomb",
        hint="if it is not, unpack it yourself; name the folder: --set data.root=PATH",
    )


def _shown(name: str) -> str:
    return repr(plain(name))
