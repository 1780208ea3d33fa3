"""Labelled uint8 images, held as a base array and the places in it that belong to a split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distill.data.channels import ChannelStats, ChannelSums
from distill.data.pictures import Pictures, census, image_digests
from distill.team.watch import beat

__all__ = [
    "UNLABELLED",
    "Decoded",
    "Split",
    "channel_stats",
    "digest_of_all",
    "evenly_spaced_positions",
    "image_digests",
    "pixel_digest",
]

UNLABELLED = -1  # the label of an image that has none

_CHUNK_BYTES = 8 << 20  # of uint8; the float64 copies of a chunk take eight times as much


@dataclass(frozen=True, eq=False)
class Split:
    """Images and labels of one split. Position ``i`` is ``images[i]``, or ``images[index[i]]`` where ``index`` is set.

    ``images`` is the *base* array: often a read-only memory map, and often larger than the split, because a subset
    shares the base of its parent instead of copying it. So never index ``images`` by position: use :meth:`take`,
    which maps positions to places in the base, or go through ``index`` yourself. ``len(split)`` is how many positions
    there are.

    Shapes:
        images: ``(M, 3, S, S)`` uint8; or the pictures that would be this array, decoded whenever they are asked for.
        labels: ``(N,)`` int64, by position.
        files: ``N`` names by position (``train/cat/a.png``), or None where images have no files.
        index: ``(N,)`` int64 place in the base of every position; None is the identity, and then ``N == M``.
        digest: hex sha256 of all pixels by position, where somebody computed it already.
    """

    images: np.ndarray | Pictures
    labels: np.ndarray
    files: tuple[str, ...] | None = None
    index: np.ndarray | None = None
    digest: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        count = self.images.shape[0] if self.index is None else len(self.index)
        assert self.images.dtype == np.uint8
        assert self.images.ndim == 4
        assert self.labels.shape == (count,)
        assert self.labels.dtype == np.int64
        assert self.files is None or len(self.files) == count

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_size(self) -> int:
        """Height and width of every image, in pixels."""
        return self.images.shape[-1]

    def take(self, positions: np.ndarray | slice) -> np.ndarray:
        """A new, writable, contiguous copy of the images at ``positions``.

        Shapes:
            positions: ``(B,)`` integers in any order, repeats allowed; or a slice.
            returns: ``(B, 3, S, S)`` uint8.
        """
        index = self.base_index(positions)
        if isinstance(self.images, Pictures):
            return self.images.take(index)
        return np.take(np.asarray(self.images), index, axis=0)

    def base_index(self, positions: np.ndarray | slice) -> np.ndarray:
        """Rows of the base array that hold ``positions``: int64 ``(B,)``."""
        if isinstance(positions, slice):
            positions = np.arange(*positions.indices(len(self)), dtype=np.int64)
        positions = np.asarray(positions, dtype=np.int64)
        return positions if self.index is None else self.index[positions]

    def subset(self, positions: np.ndarray) -> Split:
        """The split of these positions, in this order, on the same base array."""
        positions = np.asarray(positions, dtype=np.int64)
        files = None if self.files is None else tuple(self.files[i] for i in positions)
        return Split(self.images, self.labels[positions], files, self.base_index(positions).copy())

    def chunks(self) -> Iterator[np.ndarray]:
        """All images in order, a bounded number of bytes at a time: ``(B, 3, S, S)`` uint8 each."""
        step = max(1, _CHUNK_BYTES // (3 * self.image_size**2))
        for start in range(0, len(self), step):
            beat()
            yield self.take(slice(start, start + step))


@dataclass(frozen=True, eq=False)
class Decoded:
    """What a loader hands over: a whole data set, before any subset is drawn from it."""

    classes: tuple[str, ...]
    train: Split
    test: Split
    val: Split | None = None
    stats: ChannelStats | None = None  # of train, where they are known already
    skipped: int = 0
    ignored: int = 0
    note: str | None = None  # what was decided about it that a user should know
    is_test_carved: bool = False  # from what would be training images, as it brings no test images
    unlabelled: Split | None = None  # that it comes with, on the base array of train
    twins: tuple[Sequence[tuple[str, int]], ...] = ()  # rows of equal images, where these were looked for


def channel_stats(split: Split) -> ChannelStats:
    """Mean and (population) standard deviation of the split's pixels, from exact integer sums."""
    if isinstance(split.images, Pictures):
        found = _looked_at(split, split.images)
        return ChannelStats(tuple(found["mean"]), tuple(found["std"]))
    sums = ChannelSums()
    for chunk in split.chunks():
        sums.add(chunk)
    return sums.stats()


def pixel_digest(split: Split) -> str:
    """Hex sha256 of the split's pixels, image by image in order."""
    if split.digest is not None:
        return split.digest
    if isinstance(split.images, Pictures):
        return str(_looked_at(split, split.images)["digest"])
    digest = hashlib.sha256()
    for chunk in split.chunks():
        digest.update(chunk.data)
    return digest.hexdigest()


def digest_of_all(digests: Iterable[bytes]) -> str:
    """Hex sha256 of images' digests, one after the other: which images these are, in their order."""
    return hashlib.sha256(b"".join(digests)).hexdigest()


def evenly_spaced_positions(length: int, count: int) -> np.ndarray:
    """Positions, ``(n,)`` int64, of at most ``count`` images spread evenly over ``length``.

    >>> evenly_spaced_positions(10, 4).tolist(), evenly_spaced_positions(2, 5).tolist()
    ([0, 3, 6, 9], [0, 1])
    """
    return np.linspace(0, length - 1, min(count, length)).astype(np.int64)


def _looked_at(split: Split, pictures: Pictures) -> Any:
    """Digest, mean and standard deviation in one pass, the first time."""
    return pictures.remembered("census", split.index, lambda: census(split.chunks()))
