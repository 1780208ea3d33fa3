"""Where the official CIFAR files lie, and how they get there: unpacked, beside their archive, or downloaded."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tarfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from distill.data.atomic_folder import atomic_folder
from distill.errors import DataError, MissingError
from distill.events import StageProgress, Tell

__all__ = ["Official", "official_files", "official_set"]

_PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
_TIMEOUT = 30  # seconds without a byte
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Official:
    """One official data set: names and md5 as torchvision publishes them."""

    name: str
    folder: str
    url: str
    archive: str
    archive_md5: str
    md5: dict[str, str]
    train: tuple[str, ...]
    test: tuple[str, ...]
    meta: str
    classes_key: str
    label_key: str


def official_set(name: str) -> Official:
    """Names and checksums of ``cifar10`` or ``cifar100``."""
    from torchvision.datasets import CIFAR10, CIFAR100

    source = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    meta = source.meta
    return Official(
        name=name,
        folder=source.base_folder,
        url=source.url,
        archive=source.filename,
        archive_md5=source.tgz_md5,
        md5={**dict(source.train_list), **dict(source.test_list), meta["filename"]: meta["md5"]},
        train=tuple(file for file, _ in source.train_list),
        test=tuple(file for file, _ in source.test_list),
        meta=meta["filename"],
        classes_key=meta["key"],
        label_key="labels" if name == "cifar10" else "fine_labels",
    )


def official_files(official: Official, root: Path, tell: Tell) -> dict[str, Path]:
    """The official files under ``root`` by name; their content is not checked here.

    Where the folder is absent, it is unpacked from the official archive in ``root``, which is downloaded if need be.

    Raises:
        MissingError: Nothing is there and nothing can be downloaded, or ``root`` cannot be written.
        DataError: Some of the files are missing, or the archive is damaged.
    """
    folder = root / official.folder
    if not os.path.isdir(folder):  # Path.is_dir raises where a parent cannot be entered
        archive = root / official.archive
        with _atomic_folder(folder, official) as aside:
            if not os.path.isfile(archive):
                archive = aside / official.archive
                _download(official, root, archive, tell)
            _unpack(official, archive, aside)
            _move(aside / official.folder, folder)
    files = {name: folder / name for name in official.md5}
    missing = [name for name, path in files.items() if not os.path.isfile(path)]
    if missing:
        raise DataError(
            f"{folder} is incomplete: it lacks {', '.join(missing)}",
            hint=f"remove {folder}; the next run downloads it again",
        )
    return files


@contextlib.contextmanager
def _atomic_folder(folder: Path, official: Official) -> Iterator[Path]:
    existed = folder.parent.exists()
    try:
        with contextlib.ExitStack() as stack:
            try:
                aside = stack.enter_context(atomic_folder(folder))
            except OSError as error:
                raise MissingError(
                    f"{official.name} is not in {folder}, and {folder.parent} cannot be written: {error.strerror}",
                    hint=_place_by_hand(official, folder.parent),
                ) from error
            yield aside
    finally:
        if not existed:
            with contextlib.suppress(OSError):  # not empty: it holds the data set now
                folder.parent.rmdir()


def _download(official: Official, root: Path, target: Path, tell: Tell) -> None:
    try:
        with urllib.request.urlopen(official.url, timeout=_TIMEOUT) as response, open(target, "wb") as file:
            total = int(response.headers.get("Content-Length") or 0)
            while block := response.read(_BLOCK):
                file.write(block)
                tell(StageProgress("download", file.tell(), max(total, file.tell())))
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise MissingError(
            f"{official.name} is not in {root / official.folder}, and it cannot be downloaded: {reason}",
            hint=_place_by_hand(official, root),
        ) from error


def _unpack(official: Official, archive: Path, aside: Path) -> None:
    """Copy the official files out of an archive of the official md5."""
    try:
        with open(archive, "rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {archive}: {error.strerror}") from error
    if digest != official.archive_md5:
        downloaded = archive.parent == aside
        again = "run again" if downloaded else f"remove {archive} and run again"
        raise DataError(
            f"{official.url if downloaded else archive} is damaged or half downloaded: "
            f"{archive.stat().st_size:,} bytes with md5 {digest}, expected {official.archive_md5}",
            hint=f"{again}, or {_place_by_hand(official, aside.parent)}",
        )
    (aside / official.folder).mkdir()
    try:
        with tarfile.open(archive) as tar:
            for name in official.md5:
                target = aside / official.folder / name
                member = tar.extractfile(f"{official.folder}/{name}")
                assert member is not None, "a file, by the archive's md5"
                with member, open(target, "wb") as file:
                    shutil.copyfileobj(member, file, _BLOCK)
    except OSError as error:
        raise MissingError(f"cannot unpack {archive} into {aside.parent}: {error.strerror or error}") from error


def _move(source: Path, target: Path) -> None:
    """Rename into place; another process that was faster has put the same files there."""
    with contextlib.suppress(OSError):
        os.rename(source, target)


def _place_by_hand(official: Official, root: Path) -> str:
    return (
        f"download {official.archive} from {_PAGE}, put it (or its unpacked folder {official.folder}) into "
        f"{root.resolve()}; or name the folder that holds it: --set data.root=PATH"
    )
