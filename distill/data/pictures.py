"""Images that stay in their files and are decoded whenever they are asked for: what no disk here can hold."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.channels import ChannelSums
from distill.data.decode import BadImageError, decode_image
from distill.data.decode_pool import decoding_threads, read_picture
from distill.errors import DataError, DistillError
from distill.files import read_json, write_json

__all__ = ["Census", "Pictures", "census", "image_digests"]


@dataclass(frozen=True, eq=False)
class Pictures:
    """The images of a folder, as an array is asked: by row. Decoded by threads, nothing kept.

    Attributes:
        root: Below which ``paths`` lie.
        marks: Size and time of each file when it was looked at: another file now is an error, not another image.
        size: Side in pixels.
        notes: A folder for what was found out about them, once.
    """

    root: Path
    paths: tuple[str, ...]
    marks: np.ndarray
    size: int
    notes: Path
    dtype = np.dtype(np.uint8)
    ndim = 4

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """As of the array that they would be."""
        return len(self.paths), 3, self.size, self.size

    def take(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """The images of these rows, in this order.

        Shapes:
            rows: ``(B,)`` integers, repeats allowed.
            returns: ``(B, 3, S, S)`` uint8; ``out``, where it is given.

        Raises:
            DataError: A file is another one than it was, or can no longer be read.
        """
        images = np.empty((len(rows), *self.shape[1:]), np.uint8) if out is None else out

        def decode(place: int) -> None:
            images[place] = self._decoded(int(rows[place]))

        for _ in self._pool.map(decode, range(len(rows))):
            pass
        return images

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(decoding_threads(), thread_name_prefix="decode")

    def _decoded(self, row: int) -> np.ndarray:
        path = self.root / self.paths[row]
        try:
            status = os.stat(path)
            if (status.st_size, status.st_mtime_ns) != tuple(self.marks[row].tolist()):
                raise BadImageError("it has changed since this command began")
            return decode_image(read_picture(path), self.size)
        except (OSError, BadImageError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise DataError(f"{path}: {reason}", hint="restore it, then go on with --resume") from error

    def remembered(self, what: str, rows: np.ndarray | None, find_out: Callable[[], Mapping[str, Any]]) -> Any:
        """What is known of some rows; found out once, because it takes to decode them all."""
        place = hashlib.sha256(b"all" if rows is None else np.ascontiguousarray(rows).tobytes()).hexdigest()
        path = self.notes / f"{what}-{place[:32]}.json"
        try:
            return read_json(path)
        except DistillError:
            found = find_out()
        write_json(path, dict(found))
        return found


def image_digests(chunks: Iterable[np.ndarray]) -> list[bytes]:
    """sha256 of each image's pixels, whatever split it is in: equal for equal images of one size.

    Args:
        chunks: Images, ``(B, 3, S, S)`` uint8 each, as :meth:`Split.chunks` gives them.
    """
    return [hashlib.sha256(np.ascontiguousarray(image).data).digest() for chunk in chunks for image in chunk]


class Census:
    """Looks at images one after another, and keeps none: their digest, and the sums of their channels."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._sums = ChannelSums()
        self.digests: dict[int, bytes] = {}  # of each image, by its row

    def write(self, row: int, block: np.ndarray) -> None:
        """The images from ``row`` on: uint8 ``(k, 3, S, S)``."""
        self._digest.update(np.ascontiguousarray(block).data)
        self.digests.update(enumerate(image_digests([block]), row))
        self._sums.add(block)

    def sync(self) -> None:
        """Nothing is written."""

    def found(self) -> dict[str, Any]:
        """``digest``, ``mean`` and ``std`` of all of them, as of an array with these images."""
        stats = self._sums.stats()
        return {"digest": self._digest.hexdigest(), "mean": list(stats.mean), "std": list(stats.std)}


def census(blocks: Iterable[np.ndarray]) -> dict[str, Any]:
    """What :class:`Census` finds out of these images."""
    seen = Census()
    for block in blocks:
        seen.write(0, block)
    return seen.found()
