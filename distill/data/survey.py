"""A look at a folder of pictures before anything is decoded: classes, counts, and how large the pictures are."""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from distill.data.archive import read_archive
from distill.data.decode import BadImageError, decode_image, strict_pillow
from distill.data.decode_pool import read_picture
from distill.data.folder import list_folder
from distill.data.hugging_face import hugging_face_data
from distill.data.images import evenly_spaced_positions
from distill.data.layout import IMAGE_KINDS, Listing, ignored_note
from distill.data.own import own_data
from distill.data.own_given import WANTED, Given, pixels_of
from distill.devices import usable_cores
from distill.errors import DataError
from distill.files import expanded
from distill.recipe.schema import DataSpec
from distill.text import several

__all__ = ["Survey", "survey"]

_SAMPLE = 64  # pictures that are opened
_TIMED = 8  # of those, decoded
_ALL_S = 5.0  # all are looked at where that takes no longer


@dataclass(frozen=True)
class Survey:
    """What a folder or archive of pictures holds.

    Attributes:
        classes: Names, sorted.
        counts: Pictures by split (``train``, ``val``, ``test``), of those that are there.
        per_class: Training pictures of each class, in the order of ``classes``; of a folder alone.
        side: The median of the pictures' shorter sides in pixels, from a sample.
        sides: The smallest and the largest shorter side in that sample.
        decode_s: Seconds of one core to decode one picture, from a few of them.
        note: What was passed over that may have been meant, or None.
    """

    classes: tuple[str, ...]
    counts: dict[str, int]
    per_class: tuple[int, ...]
    side: int
    sides: tuple[int, int]
    decode_s: float
    note: str | None = None

    @property
    def images(self) -> int:
        """All pictures."""
        return sum(self.counts.values())

    @property
    def imbalance(self) -> float:
        """The largest class over the smallest."""
        return max(self.per_class) / max(min(self.per_class), 1)

    def memory_mb(self, image_size: int) -> float:
        """Millions of bytes that all pictures take at this size."""
        return self.images * 3 * image_size * image_size / 1e6

    @property
    def decode_all_s(self) -> float:
        """About how long decoding all of them takes on this machine's cores, in seconds."""
        return self.images * self.decode_s / usable_cores()


def survey(spec: DataSpec, *, check: bool = False) -> Survey:
    """Look at the folder or archive ``spec.root``: a sample of its pictures is opened, none is kept.

    Args:
        check: Look for pictures that cannot be used, among all of them if that takes a few seconds at most.

    Raises:
        MissingError: ``spec.root`` does not exist.
        DataError: The layout is wrong, or no picture of the sample can be opened.
    """
    if spec.name in ("python", "hf"):
        return _of_given(hugging_face_data(spec) if spec.name == "hf" else own_data(spec), spec)
    listing = list_folder(spec)
    sides, seconds, bad = _measure(content for _, content in _read(spec, listing, _sample(listing)))
    if not sides:
        raise DataError(f"no picture of a sample of {spec.root} can be opened", hint=f"pictures are {IMAGE_KINDS}")
    train = listing.splits["train"]
    notes = (listing.note, ignored_note(listing.ignored), _unusable(spec, listing, bad, len(sides), check))
    return Survey(
        classes=listing.classes,
        counts={name: len(split.paths) for name, split in listing.splits.items()},
        per_class=tuple(int(n) for n in np.bincount(train.labels, minlength=len(listing.classes))),
        side=round(statistics.median(sides)),
        sides=(min(sides), max(sides)),
        decode_s=statistics.median(seconds) if seconds else 0.0,
        note="; ".join(each for each in notes if each) or None,
    )


def _of_given(given: Given, spec: DataSpec) -> Survey:
    """What somebody else's code gives; its images are at hand, or that code decodes them."""
    train, sides, seconds = given.splits["train"], [], []
    for at in evenly_spaced_positions(len(train), _SAMPLE).tolist():
        started = time.perf_counter()
        try:
            sides.append(min(pixels_of(train.row(at)[0]).shape[:2]))
        except Exception:  # a bad picture is told by whoever decodes all of them
            continue
        seconds.append(time.perf_counter() - started)
    if not sides:
        raise DataError(f"no image of a sample of {spec.place} can be used", hint=WANTED)
    return Survey(
        classes=given.classes,
        counts={name: len(split) for name, split in given.splits.items()},
        per_class=(),
        side=round(statistics.median(sides)),
        sides=(min(sides), max(sides)),
        decode_s=statistics.median(seconds) * usable_cores(),  # one core does it
    )


def _sample(listing: Listing) -> list[str]:
    paths = listing.splits["train"].paths
    return [paths[at] for at in evenly_spaced_positions(len(paths), _SAMPLE)]


def _unusable(spec: DataSpec, listing: Listing, bad: int, opened: int, check: bool) -> str:
    """What is said of pictures that cannot be used: of all, where there is time, else of the sample."""
    found = _all_unusable(spec, listing) if check else None
    if found is None:
        told = f"{bad} of {bad + opened} pictures of a sample cannot be opened: training lists every one"
        return told if bad else ""
    if not found:
        return ""
    return (
        f"{len(found)} of {len(listing)} pictures cannot be used ({several(found, 3)}): repair or remove them, or set "
        "data.skip_bad: true in the recipes"
    )


def _all_unusable(spec: DataSpec, listing: Listing) -> list[str] | None:
    """Every picture that cannot be used, by its path; None where decoding all of them takes too long."""
    ends, found = time.monotonic() + _ALL_S, []
    with strict_pillow():
        for path, content in _read(spec, listing, [path for split in listing.splits.values() for path in split.paths]):
            if not _is_usable(content):
                found.append(path)
            if time.monotonic() > ends:
                return None
    return found


def _is_usable(content: bytes) -> bool:
    try:
        decode_image(content, 32)
    except BadImageError:
        return False
    return True


def _read(spec: DataSpec, listing: Listing, paths: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Pictures by their paths; one that cannot be read is empty."""
    root = expanded(spec.root)
    if root.is_dir():
        for path in paths:
            try:
                yield path, read_picture(root / path)
            except (OSError, BadImageError):
                yield path, b""
        return
    for path, content in read_archive(root, {f"{listing.prefix}{path}": path for path in paths}):
        yield path, content if isinstance(content, bytes) else b""


def _measure(pictures: Iterator[bytes]) -> tuple[list[int], list[float], int]:
    """Shorter sides of pictures, seconds to decode some of them, and how many cannot be opened."""
    sides: list[int] = []
    seconds: list[float] = []
    bad = 0
    with strict_pillow():
        for content in pictures:
            try:
                with Image.open(io.BytesIO(content)) as image:
                    side = min(image.size)
                if len(seconds) < _TIMED:
                    started = time.perf_counter()
                    decode_image(content, 32)
                    seconds.append(time.perf_counter() - started)
            except Exception:  # which one it is, is told by whoever decodes all of them
                bad += 1
            else:
                sides.append(side)
    return sides, seconds, bad
