"""Images that a data set holds twice, pixel by pixel: one that is trained on says little where it tests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from distill.data.images import UNLABELLED, Split, image_digests
from distill.data.pictures import Pictures

__all__ = ["Place", "find_twins", "leaks", "leaks_without_labels", "row_digests"]

Place = tuple[str, int]
"""A split as it was decoded, and a row of it."""

_MOST = 10_000  # groups that are kept, and places of each


def row_digests(split: Split, *, without: Iterable[int]) -> dict[int, bytes]:
    """The digest of each image of a split as it was decoded, by its row; rows ``without`` one are left out."""
    passed_over = set(without)
    return {row: each for row, each in enumerate(image_digests(split.chunks())) if row not in passed_over}


def find_twins(digests: Mapping[str, Mapping[int, bytes]]) -> list[list[Place]]:
    """Groups of two or more places of equal images, those of several splits first.

    Args:
        digests: Of the images' pixels, by split and row.
    """
    groups: dict[bytes, list[Place]] = defaultdict(list)
    for name, each in digests.items():
        for row, digest in each.items():
            groups[digest].append((name, row))
    twins = [group for group in groups.values() if len(group) > 1]
    twins.sort(key=lambda group: group[0][0] == group[-1][0])  # splits come one after the other
    return [[*group[: _MOST - 1], group[-1]] if len(group) > _MOST else group for group in twins[:_MOST]]


def leaks(twins: Iterable[Sequence[Place]], parts: Mapping[str, tuple[str, Split]]) -> tuple[str, ...]:
    """A line for each kind of judging images of which some are trained on, too.

    Args:
        twins: From :func:`find_twins`; of rows that no part holds nothing is said.
        parts: ``training``, and ``validation`` and ``test`` where there are such images: the split that each was
            decoded in, and its images.
    """
    groups = [list(map(tuple, group)) for group in twins]
    wanted = {place for group in groups for place in group}
    found: dict[tuple[object, ...], tuple[str, int, str]] = {}
    for part, (decoded_in, split) in parts.items() if wanted else ():
        for at, row in enumerate(split.base_index(slice(None)).tolist()):
            if (decoded_in, row) in wanted:
                name = f"{decoded_in} {row}" if split.files is None else split.files[at]
                found[decoded_in, row] = (part, int(split.labels[at]), name)
    said: dict[str, list[tuple[str, str, bool]]] = defaultdict(list)
    for group in groups:
        members = [found[place] for place in group if place in found]
        trained = [each for each in members if each[0] == "training"]
        for part, label, name in members:
            if trained and part != "training":
                said[part].append((name, trained[0][2], all(each[1] not in (label, UNLABELLED) for each in trained)))
    cut = len(groups) == _MOST or any(len(group) == _MOST for group in groups)
    lines = (_line(part, len(parts[part][1]), pairs) for part, pairs in said.items())
    return tuple(f"at least {line}" if cut else line for line in lines)


def leaks_without_labels(shown: Split, parts: Mapping[str, Split]) -> tuple[str, ...]:
    """A line for each kind of judging images of which some are among those that a teacher alone teaches.

    Args:
        shown: Those, kept as decoded.
        parts: The judging images by kind, at the same size; what is decoded for every batch is not looked at.
    """
    kept = {part: split for part, split in parts.items() if not isinstance(split.images, Pictures)}
    taught = set(image_digests(shown.chunks())) if kept else set()
    counts = {part: sum(each in taught for each in image_digests(split.chunks())) for part, split in kept.items()}
    return tuple(
        f"{count:,} of the {len(kept[part]):,} {part} images {'is' if count == 1 else 'are'} among those without "
        "labels, which the teacher teaches: on other pictures expect less"
        for part, count in counts.items()
        if count
    )


def _line(part: str, images: int, pairs: Sequence[tuple[str, str, bool]]) -> str:
    judging, training, _ = pairs[0]
    line = f"{len(pairs):,} of the {images:,} {part} images {'is' if len(pairs) == 1 else 'are'} trained on, too "
    line += f"({judging} is the same picture as {training}): on other pictures expect less"
    unlike = sum(each[2] for each in pairs)
    return line + (f"; {unlike:,} with another label" if unlike else "")
