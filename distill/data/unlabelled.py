"""Images without labels, behind those that have one, taught by a teacher alone.

They are the pictures of a folder, however deep; or the training images that ``data.limit`` leaves out, and those
without labels that the data set comes with.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.array_cache import ArrayWriter, array_key, open_or_build, read_split, require_space
from distill.data.decode_pool import Job, decode_all, read_picture
from distill.data.images import UNLABELLED, Split, pixel_digest
from distill.data.layout import IMAGE_KINDS, IMAGE_SUFFIXES, is_hidden
from distill.errors import DataError, MissingError
from distill.events import Tell
from distill.files import expanded, files_identity
from distill.recipe.data_spec import REST, DataSpec
from distill.text import counted, several

__all__ = ["Unlabelled", "list_unlabelled", "with_unlabelled"]

_NAME = "train"


@dataclass(frozen=True)
class Unlabelled:
    """What is known of the images without labels.

    Attributes:
        fingerprint: Hex sha256 of their pixels.
        note: What a user should know of them.
    """

    count: int
    fingerprint: str
    note: str


def with_unlabelled(
    spec: DataSpec, train: Split, fingerprint: str, tell: Tell, *, rest: Mapping[str, Split]
) -> tuple[Split, Unlabelled]:
    """The training images with those of ``data.unlabelled`` behind them, label ``UNLABELLED``.

    Args:
        fingerprint: Of ``train``.
        rest: What the data set holds besides, on the base array of ``train``: what they are, and the images.

    Raises:
        MissingError: No such folder, or decoded images cannot be kept.
        DataError: It holds no picture, or bad ones; or the limit leaves no image out.
    """
    if spec.unlabelled == REST:
        return _with_rest(spec, train, rest)
    return _with_pictures(spec, train, fingerprint, tell)


def _with_rest(spec: DataSpec, train: Split, rest: Mapping[str, Split]) -> tuple[Split, Unlabelled]:
    if not rest:
        raise DataError(
            f"data.unlabelled: {REST}: data.limit {spec.limit:,} leaves no training image out",
            hint="a lower limit, or no data.unlabelled",
        )
    parts = list(rest.values())
    count = sum(len(part) for part in parts)
    files = [part.files for part in (train, *parts)]
    joined = Split(
        train.images,
        np.concatenate([train.labels, np.full(count, UNLABELLED, dtype=np.int64)]),
        None if None in files else tuple(file for names in files for file in names or ()),
        np.concatenate([part.base_index(slice(None)) for part in (train, *parts)]),
    )
    told = " and ".join(f"the {counted(len(part), 'training image')} {what}" for what, part in rest.items())
    digest = pixel_digest(joined.subset(np.arange(len(train), len(joined))))
    return joined, Unlabelled(count, _fingerprint(count, digest), f"data.unlabelled: {told}")


def _with_pictures(spec: DataSpec, train: Split, fingerprint: str, tell: Tell) -> tuple[Split, Unlabelled]:
    """Both kinds are kept as one array beside the other decoded images, so that they can be looked up as one."""
    assert spec.unlabelled is not None
    root = expanded(spec.unlabelled)
    paths, ignored = list_unlabelled(root)
    key = array_key("unlabelled", fingerprint, str(root.resolve()), train.image_size, files_identity(root, paths))
    entry = open_or_build(key, partial(_build, root, paths, train, tell), tell)
    bad: list[tuple[int, str]] = entry.facts["bad"]
    if bad and not spec.skip_bad:
        told = several([f"{paths[row]}: {reason}" for row, reason in bad], most=10)
        raise DataError(
            f"data.unlabelled {root}: {len(bad):,} of {len(paths):,} images cannot be used: {told}",
            hint="repair or remove them; or go on without them: --set data.skip_bad=true",
        )
    base = entry.splits[_NAME]
    joined = Split(base.images, base.labels, digest=base.digest)
    if bad:
        joined = joined.subset(np.setdiff1d(np.arange(len(base)), [len(train) + row for row, _ in bad]))
    count = len(joined) - len(train)
    if count == 0:
        raise DataError(f"data.unlabelled {root}: every image is bad")
    more = [f"{counted(ignored, 'other file')} ignored"] if ignored else []
    more += [f"{counted(len(bad), 'unreadable image')} skipped"] if bad else []
    note = f"data.unlabelled: {counted(count, 'image')} of {root}" + (f" ({', '.join(more)})" if more else "")
    return joined, Unlabelled(count, entry.facts["digest"], note)


def list_unlabelled(root: Path) -> tuple[list[str], int]:
    """Pictures below the folder, as paths in order, and how many other files there are; what is hidden is no file.

    Raises:
        MissingError: No such folder.
        DataError: It holds no picture, or cannot be listed.
    """
    if not root.is_dir():
        what = "a file, and archives are not read here: unpack it" if root.is_file() else "no such folder"
        raise MissingError(f"data.unlabelled {root}: {what}", hint="name a folder that holds pictures, however deep")
    paths, ignored = [], 0

    def refuse(error: OSError) -> None:
        raise DataError(f"cannot list {error.filename}: {error.strerror}") from error

    seen: set[str] = set()  # links are followed, as in data.root; a folder that several lead to is looked through once
    waiting = [str(root)]
    while waiting:
        for folder, below, files in os.walk(waiting.pop(0), onerror=refuse):
            if (place := os.path.realpath(folder)) in seen:
                below.clear()
                continue
            seen.add(place)
            below[:] = sorted(name for name in below if not is_hidden(name))
            waiting += [path for name in below if os.path.islink(path := os.path.join(folder, name))]
            for name in files:
                if name.lower().endswith(IMAGE_SUFFIXES) and not is_hidden(name):
                    paths.append(Path(folder, name).relative_to(root).as_posix())
                else:
                    ignored += not is_hidden(name)
    if not paths:
        raise DataError(f"data.unlabelled {root} holds no {IMAGE_KINDS}")
    return sorted(paths), ignored


def _build(root: Path, paths: list[str], train: Split, tell: Tell, aside: Path) -> Mapping[str, Any]:
    size, own = train.image_size, len(train)
    labels = np.concatenate([train.labels, np.full(len(paths), UNLABELLED, dtype=np.int64)])
    require_space(aside, len(labels) * 3 * size * size)
    with ArrayWriter(aside, _NAME, labels, size) as writer:
        row = 0
        for chunk in train.chunks():
            writer.write(row, chunk)
            row += len(chunk)
        jobs: Iterator[Job] = (
            Job(_NAME, own + row, partial(read_picture, root / path)) for row, path in enumerate(paths)
        )
        found = decode_all(jobs, {_NAME: writer}, size=size, total=len(paths), tell=tell)[_NAME]
    bad = [(row - own, reason) for row, reason in sorted(found.items())]
    good = np.setdiff1d(np.arange(own, len(labels)), list(found))
    digest = pixel_digest(read_split(aside, _NAME).subset(good))
    return {"bad": bad, "digest": _fingerprint(len(good), digest)}


def _fingerprint(count: int, digest: str) -> str:
    return hashlib.sha256(f"unlabelled {count} {digest}".encode()).hexdigest()
