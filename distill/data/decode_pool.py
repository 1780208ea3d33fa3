"""Many encoded images to rows of arrays: several threads, bounded memory, every bad image noted."""

from __future__ import annotations

import stat
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np

from distill.data.decode import BadImageError, decode_image, strict_pillow
from distill.data.resume_decoding import DecodingProgress
from distill.events import StageProgress, Tell
from distill.team.cores import usable_cores
from distill.team.watch import beat

__all__ = ["MAX_FILE_BYTES", "Job", "PixelSink", "decode_all", "decoding_threads", "read_picture"]

MAX_FILE_BYTES = 256 << 20
_MAX_THREADS = 8


@dataclass(frozen=True)
class Job:
    """One image to decode: where its pixels go, and how to get at its bytes.

    ``read`` runs in a thread and raises ``OSError`` or :class:`BadImageError` where there are no bytes to be had.
    """

    split: str
    row: int
    read: Callable[[], bytes]


class PixelSink(Protocol):
    """Where pixels go: an array on the disk, or somebody who only looks at them."""

    def write(self, row: int, block: np.ndarray) -> None: ...
    def sync(self) -> None: ...


def read_picture(path: Path) -> bytes:
    """The bytes of a picture's file.

    Raises:
        BadImageError: It is no regular file, or far too large for a picture.
        OSError: It cannot be read.
    """
    beat()
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait forever
        raise BadImageError("not a regular file")
    if status.st_size > MAX_FILE_BYTES:
        raise BadImageError(f"larger than {MAX_FILE_BYTES >> 20} MB")
    return path.read_bytes()


def decode_all(
    jobs: Iterable[Job],
    writers: Mapping[str, PixelSink],
    *,
    size: int,
    total: int,
    tell: Tell,
    progress: DecodingProgress | None = None,
) -> dict[str, dict[int, str]]:
    """Decode every job into its writer; the rows of bad images stay zero.

    Args:
        progress: What a decoding of the same jobs did before it was stopped; told now and then how far this one is.

    Returns:
        split -> row -> reason, for images that cannot be used.
    """
    bad: dict[str, dict[int, str]] = {split: {} for split in writers} | (progress.bad if progress else {})
    threads = decoding_threads()
    waiting: deque[tuple[Job, Future[np.ndarray | str]]] = deque()
    done = progress.done if progress else 0

    def settle() -> None:
        nonlocal done
        job, future = waiting.popleft()
        pixels = future.result()
        if isinstance(pixels, str):
            bad[job.split][job.row] = pixels
        else:
            writers[job.split].write(job.row, pixels[None])
        done += 1
        tell(StageProgress("decode", done, total))
        if progress:
            progress.save_every_few_seconds(done, bad, writers.values())

    try:
        with strict_pillow(), ThreadPoolExecutor(threads) as pool:
            for job in islice(jobs, done, None):
                waiting.append((job, pool.submit(_decode, job.read, size)))
                if len(waiting) >= 2 * threads:
                    settle()
            while waiting:
                settle()
    except BaseException:
        if progress:
            progress.save(done, bad, writers.values())
        raise
    return bad


def _decode(read: Callable[[], bytes], size: int) -> np.ndarray | str:
    """Pixels, or the reason why there are none."""
    try:
        return decode_image(read(), size)
    except BadImageError as error:
        return str(error)
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"


def decoding_threads() -> int:
    """How many threads decode: one a core, up to where they wait for Python's lock most of the time."""
    return min(_MAX_THREADS, usable_cores())
