"""``folder``: the user's own images in class folders, split or not, in a folder or an archive.

Every image is decoded before anything is trained, so that all bad ones are reported at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.archive import list_archive, read_archive
from distill.data.array_cache import (
    ArrayWriter,
    array_key,
    arrays_folder,
    begun_bytes,
    images_file,
    is_kept,
    open_or_build,
    peek_facts,
    read_split,
    require_space,
)
from distill.data.decode import BadImageError
from distill.data.decode_pool import Job, decode_all, read_picture
from distill.data.decoded_storage import choose_place
from distill.data.images import Decoded, Split, channel_stats
from distill.data.layout import (
    EXPECTED_LAYOUT,
    IMAGE_KINDS,
    IMAGE_SUFFIXES,
    SPLIT_FOLDERS,
    Listing,
    RawListing,
    check_layout,
    check_split_names,
    class_names,
    is_hidden,
)
from distill.data.pictures import Census, Pictures
from distill.data.resume_decoding import DecodingProgress
from distill.data.test_split import decoded_set
from distill.data.twins import find_twins, row_digests
from distill.errors import DataError, MissingError, UsageError
from distill.events import Note, Tell, silent
from distill.files import expanded, files_identity, json_sha256
from distill.recipe.schema import DataSpec
from distill.text import item_lines, several

__all__ = ["folder_classes", "list_folder", "load_folder"]

_MAX_SHOWN = 20
_OTHER_KINDS = {".heic", ".heif", ".avif", ".jp2", ".jxl", ".svg", ".psd", ".dng", ".cr2", ".nef", ".arw", ".npy"}


@dataclass(frozen=True)
class _Source:
    """A folder or an archive, listed: its layout, and the jobs that read every image once."""

    listing: Listing
    jobs: Callable[[], Iterator[Job]]


def load_folder(spec: DataSpec, tell: Tell = silent, *, listing: Listing | None = None) -> Decoded:
    """Decode the folder or archive ``spec.root``, or open what was decoded before.

    Only files directly in a class folder count: PNG, JPEG, WebP, BMP, GIF or TIFF by name, decoded by content. Hidden
    files are passed over, other files and deeper folders are passed over and counted.

    Args:
        listing: What to decode of a folder that has another layout.

    Raises:
        MissingError: ``spec.root`` does not exist, or decoded images cannot be kept.
        DataError: The layout is wrong, or images are bad; all of them are listed.
    """
    root = _existing(spec)
    place = array_key("going", str(root.resolve()), spec.side)  # one at most of a data set at one size
    why = None
    if root.is_dir():
        given, listing = listing, listing or check_layout(_find(root), str(root))
        identity = files_identity(root, [path for split in listing.splits.values() for path in split.paths])
        identity += [] if given is None else [[_digest(given)]]
        key = array_key("folder", str(root.resolve()), spec.side, identity)
        needed = len(listing) * 3 * spec.side**2
        there = needed if is_kept(key) else begun_bytes(place)
        choice = choose_place(spec, needed, arrays_folder(), there=there)
        if not choice.kept:
            return _unkept(spec, root, listing, identity, tell=tell, why=_noted(choice.why, listing))
        source, why = partial(_Source, listing, partial(_folder_jobs, root, listing)), _noted(choice.why, listing)
    else:
        if spec.decoded == "per_batch":
            raise UsageError(
                f"data.decoded: per_batch needs a folder, and {root} is an archive",
                hint="unpack it; or keep what is decoded: --set data.decoded=kept",
            )
        key = _archive_key(root, spec)
        source = partial(_archive_source, root, tell)
    entry = open_or_build(key, partial(_build, spec, source, key, tell), tell, place=place)
    _refuse_bad(spec, entry.facts)
    note = why if root.is_dir() else entry.facts.get("listing_note")  # an archive is listed once
    return _decoded(spec, entry.splits, entry.facts, note=note)


def _noted(why: str | None, listing: Listing) -> str | None:
    return "\n".join(each for each in (listing.note, why) if each) or None


def list_folder(spec: DataSpec) -> Listing:
    """What the folder or archive ``spec.root`` holds; no image is read.

    Raises:
        MissingError: ``spec.root`` does not exist.
        DataError: The layout is wrong.
    """
    root = _existing(spec)
    if root.is_dir():
        return check_layout(_find(root), str(root))
    content = list_archive(root, silent)
    return replace(check_layout(content.entries, str(root)), prefix=content.prefix)


def folder_classes(spec: DataSpec) -> tuple[str, ...]:
    """The classes of the folder or archive ``spec.root``; no image is read.

    Raises:
        MissingError: ``spec.root`` does not exist.
        DataError: There are no two classes.
    """
    root = _existing(spec)
    if root.is_dir():
        return class_names(_find(root, files=False), str(root))
    # an archive is read to its end to be listed; before a size is settled nobody knows what it was decoded to
    facts = None if spec.image_size == "auto" else peek_facts(_archive_key(root, spec))
    return tuple(facts["classes"]) if facts else class_names(list_archive(root, silent).entries, str(root))


def _existing(spec: DataSpec) -> Path:
    root = expanded(spec.root)
    if not (os.path.isdir(root) or os.path.isfile(root)):  # Path's own raise where a parent cannot be entered
        what = "is neither a folder nor an archive" if os.path.lexists(root) else "does not exist"
        raise MissingError(
            f"data.root {root} {what} (looked for {root.absolute()})",
            hint=f"name a folder or an archive: --set data.root=PATH; {EXPECTED_LAYOUT}",
        )
    return root


def _find(root: Path, *, files: bool = True) -> RawListing:
    """What lies in a folder, links followed: splits, or, where there is no ``train/``, class folders to train on."""
    entries = RawListing()
    try:
        names = {entry.name for entry in _visible(root) if _is_folder(entry)}
        # where a file system knows no capitals Test/ is test/, too
        names |= {name.lower() for name in names if (root / name.lower()).is_dir()}
        check_split_names(names, str(root), holds_classes=lambda name: _holds_classes(root / name))
        for folder, split in SPLIT_FOLDERS.items() if (root / "train").is_dir() else ():
            if (root / folder).is_dir():
                entries.add_split(split, folder)
                for label in _visible(root / folder):
                    _find_class(entries, split, label, files)
        folders = [] if entries.splits else _class_folders(root)
        pictured = [folder for folder in folders if _has_pictures(Path(folder.path))]
        if len(pictured) < 2 and not entries.splits and not _has_pictures(root):
            _refuse_too_few(root, pictured, [folder for folder in folders if folder not in pictured])
        if len(pictured) > 1:
            entries.add_split("train", "")
            entries.no_class += [folder.name for folder in folders if folder not in pictured]
            for label in pictured:
                _find_class(entries, "train", label, files)
        below = [] if entries.splits else [each for each in _visible(root) if Path(each.path, "train").is_dir()]
    except OSError as error:
        raise DataError(f"cannot list {error.filename}: {error.strerror}") from error
    if len(below) == 1:
        raise DataError(f"{root} has no train/ folder", hint=f"did you mean --set data.root={below[0].path}?")
    return entries


def _refuse_too_few(root: Path, pictured: Sequence[os.DirEntry[str]], others: Sequence[os.DirEntry[str]]) -> None:
    """Say that one folder is no two classes; of files of kinds that are not read, which kinds these are."""
    told = []
    for folder in others:
        names = [entry.name for entry in _visible(Path(folder.path)) if not _is_folder(entry)]
        kinds = sorted({Path(name).suffix.lower() for name in names} & _OTHER_KINDS)
        if kinds:
            told.append(f"{folder.name}/ ({several(kinds, 4)})")
    one = f"{root} has one class folder with pictures: {pictured[0].name}" if pictured else str(root)
    if told:
        unread = f"no file in {several(sorted(told), 8)} is named like a {IMAGE_KINDS}"
        raise DataError(f"{one}; {unread}" if pictured else f"{one}: {unread}", hint="convert them to one of these")
    if pictured:
        raise DataError(one, hint="a classifier needs two: a folder for each class")


def _find_class(entries: RawListing, split: str, label: os.DirEntry[str], files: bool) -> None:
    if not label.is_dir():  # raises where links lead in circles: a class must not be lost without a word
        entries.ignored += 1
        return
    entries.add_class(split, label.name)
    for entry in _visible(Path(label.path)) if files else ():
        if _is_folder(entry):
            entries.ignored += 1
        else:
            entries.add_file(split, label.name, entry.name)


def _class_folders(root: Path) -> list[os.DirEntry[str]]:
    """Folders directly below the root, unless one of them is a whole data set or a split."""
    folders = [entry for entry in _visible(root) if _is_folder(entry)]
    if any(entry.name in SPLIT_FOLDERS or Path(entry.path, "train").is_dir() for entry in folders):
        return []
    return folders


def _has_pictures(folder: Path) -> bool:
    return any(entry.name.lower().endswith(IMAGE_SUFFIXES) and not _is_folder(entry) for entry in _visible(folder))


def _holds_classes(folder: Path) -> bool:
    return not _has_pictures(folder) and any(map(_is_folder, _visible(folder)))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links in circles, or into what is closed: a bad image, as reading it will say
        return False


def _visible(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if not is_hidden(entry.name))


def _digest(listing: Listing) -> str:
    """Hex sha256 of what a layout of its own says of its files: classes and labels."""
    return json_sha256([listing.classes, {name: split.labels.tolist() for name, split in listing.splits.items()}])


def _archive_key(root: Path, spec: DataSpec) -> str:
    status = root.stat()
    identity = [str(root.resolve()), status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    return array_key("archive", identity, spec.side)


def _folder_jobs(root: Path, listing: Listing) -> Iterator[Job]:
    for name, split in listing.splits.items():
        for row, path in enumerate(split.paths):
            yield Job(name, row, partial(read_picture, root / path))


def _archive_source(root: Path, tell: Tell) -> _Source:
    content = list_archive(root, tell)
    listing = check_layout(content.entries, str(root))
    return _Source(listing, partial(_archive_jobs, root, listing, content.prefix))


def _archive_jobs(root: Path, listing: Listing, prefix: str) -> Iterator[Job]:
    wanted = {
        f"{prefix}{path}": (name, row) for name, split in listing.splits.items() for row, path in enumerate(split.paths)
    }
    for (name, row), content in read_archive(root, wanted):
        yield Job(name, row, partial(_given, content))


def _given(content: bytes | BadImageError) -> bytes:
    if isinstance(content, BadImageError):
        raise content
    return content


def _build(spec: DataSpec, source: Callable[[], _Source], key: str, tell: Tell, aside: Path) -> Mapping[str, Any]:
    opened = source()
    listing, size, total = opened.listing, spec.side, len(opened.listing)
    files = dict(images_file(name, len(split.labels), size) for name, split in listing.splits.items())
    progress = DecodingProgress.resume(aside, key, files)
    if progress.done:
        tell(Note(f"{spec.root}: {progress.done:,} of {total:,} images were decoded before; going on with the others"))
    require_space(aside, (total - progress.done) * 3 * size * size)
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(ArrayWriter(aside, name, split.labels, size, go_on=progress.done > 0))
            for name, split in listing.splits.items()
        }
        bad = decode_all(opened.jobs(), writers, size=size, total=total, tell=tell, progress=progress)
    facts = _facts(spec, listing, bad)
    _refuse_bad(spec, facts)
    _refuse_emptied_classes(listing, bad)
    stats = channel_stats(_without_bad("train", read_split(aside, "train"), facts))
    twins = find_twins({name: row_digests(read_split(aside, name), without=bad[name]) for name in listing.splits})
    progress.remove()
    return {**facts, "listing_note": listing.note, "mean": stats.mean, "std": stats.std, "twins": twins}


def _unkept(
    spec: DataSpec,
    root: Path,
    listing: Listing,
    identity: Sequence[Sequence[str | int]],
    *,
    tell: Tell,
    why: str | None,
) -> Decoded:
    """The images as their files: looked at once, and decoded whenever they are asked for."""
    key = array_key("unkept", str(root.resolve()), spec.side, identity)
    facts = open_or_build(key, partial(_look_at_all, spec, root, listing, tell), tell).facts
    _refuse_bad(spec, facts)
    bases, rows = {}, iter(identity)
    for name, split in listing.splits.items():
        marks = [each[1:3] if len(each) == 4 else (-1, -1) for each in islice(rows, len(split.paths))]
        pictures = Pictures(
            root.absolute(), split.paths, np.array(marks, dtype=np.int64), spec.side, arrays_folder() / key
        )
        bases[name] = Split(pictures, split.labels, digest=facts["digests"][name])
    return _decoded(spec, bases, facts, note=why)


def _look_at_all(spec: DataSpec, root: Path, listing: Listing, tell: Tell, _aside: Path) -> Mapping[str, Any]:
    """Decode every image once, for what is known of kept ones: which are bad, their digest, their mean."""
    seen = {name: Census() for name in listing.splits}
    bad = decode_all(_folder_jobs(root, listing), seen, size=spec.side, total=len(listing), tell=tell)
    facts = _facts(spec, listing, bad)
    _refuse_bad(spec, facts)
    _refuse_emptied_classes(listing, bad)
    found = {name: each.found() for name, each in seen.items()}
    stats = {"mean": found["train"]["mean"], "std": found["train"]["std"]}
    twins = find_twins({name: each.digests for name, each in seen.items()})
    return {**facts, **stats, "digests": {name: each["digest"] for name, each in found.items()}, "twins": twins}


def _facts(spec: DataSpec, listing: Listing, bad: Mapping[str, Mapping[int, str]]) -> dict[str, Any]:
    return {
        "classes": listing.classes,
        "root": spec.root,
        "files": {name: split.paths for name, split in listing.splits.items()},
        "bad": {name: sorted(rows.items()) for name, rows in bad.items()},
        "ignored": listing.ignored,
    }


def _refuse_bad(spec: DataSpec, facts: Mapping[str, Any]) -> None:
    """List every bad image, unless the recipe goes on without them."""
    bad = [f"{facts['files'][name][row]}: {reason}" for name, rows in facts["bad"].items() for row, reason in rows]
    if not bad or spec.skip_bad:
        return
    total = sum(len(paths) for paths in facts["files"].values())
    lines = [f"{len(bad):,} of {total:,} images in {spec.root} cannot be used:", *item_lines(bad, _MAX_SHOWN)]
    raise DataError("\n".join(lines), hint="repair or remove them; or go on without them: --set data.skip_bad=true")


def _refuse_emptied_classes(listing: Listing, bad: Mapping[str, Mapping[int, str]]) -> None:
    for name, split in listing.splits.items():
        good = np.ones(len(split.paths), dtype=bool)
        good[list(bad[name])] = False
        left = np.bincount(split.labels[good], minlength=len(listing.classes))
        for label in np.flatnonzero(left == 0):
            raise DataError(f"every image of {name}/{listing.classes[label]} is bad: nothing is left of this class")


def _decoded(spec: DataSpec, bases: Mapping[str, Split], facts: Mapping[str, Any], *, note: str | None) -> Decoded:
    splits = {name: _without_bad(name, base, facts) for name, base in bases.items()}
    return decoded_set(spec, splits, facts, note=note)


def _without_bad(name: str, base: Split, facts: Mapping[str, Any]) -> Split:
    """The split with its file names; rows of bad images stay in the base array and are passed over."""
    part = Split(base.images, base.labels, tuple(facts["files"][name]), digest=base.digest)
    bad = [row for row, _ in facts["bad"][name]]
    if not bad:
        return part
    good = part.subset(np.setdiff1d(np.arange(len(part)), bad))
    # Of pictures the good ones alone were looked at; of an array all of its rows.
    return replace(good, digest=base.digest) if isinstance(base.images, Pictures) else good
