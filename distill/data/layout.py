"""The layout of a data set made of files, in a folder or an archive: ``<split>/<class>/<image>``, or classes alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from distill.errors import DataError
from distill.text import several

__all__ = [
    "EXPECTED_LAYOUT",
    "IMAGE_KINDS",
    "IMAGE_SUFFIXES",
    "Listing",
    "RawListing",
    "SplitListing",
    "check_layout",
    "check_split_names",
    "class_names",
    "ignored_note",
    "is_hidden",
]

SPLIT_NAMES = ("train", "val", "test")
SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
IMAGE_KINDS = "PNG, JPEG, WebP, BMP, GIF or TIFF"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff")
EXPECTED_LAYOUT = (
    f"expected train/<class>/<image> ({IMAGE_KINDS}, directly in the class folder), optionally test/ and val/ or "
    "valid/ alike; or <class>/<image> alone"
)


@dataclass
class RawListing:
    """What lies under a root, before anything is checked: split -> class -> names of image files.

    Attributes:
        folders: What the folder of each split is called; empty where the classes lie in the root itself.
        no_class: Folders beside classes in the root itself that hold no picture directly.
    """

    splits: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    ignored: int = 0
    folders: dict[str, str] = field(default_factory=dict)
    no_class: list[str] = field(default_factory=list)

    def add_split(self, split: str, folder: str | None = None) -> None:
        """Note that the folder of a split exists.

        Raises:
            DataError: Another folder is that split already (``val/`` and ``valid/``).
        """
        folder = split if folder is None else folder
        if self.folders.setdefault(split, folder) != folder:
            raise DataError(f"{self.folders[split]}/ and {folder}/ are both validation", hint="keep one of them")
        self.splits.setdefault(split, {})

    def add_class(self, split: str, label: str) -> None:
        """Note that a class folder exists."""
        self.splits.setdefault(split, {}).setdefault(label, [])

    def add_file(self, split: str, label: str, name: str) -> None:
        """Note a file directly in a class folder: an image by its suffix, or something to pass over."""
        self.add_class(split, label)
        if name.lower().endswith(IMAGE_SUFFIXES):
            self.splits[split][label].append(name)
        else:
            self.ignored += 1


@dataclass(frozen=True, eq=False)
class SplitListing:
    """Images of one split, by class and then by name: paths ``train/cat/a.png`` below the root, and int64 labels."""

    paths: tuple[str, ...]
    labels: np.ndarray


@dataclass(frozen=True, eq=False)
class Listing:
    """A data set whose layout is as expected; ``prefix`` is what stands before its paths in an archive.

    ``no_class`` names folders that could be meant as classes, and hold no picture directly.
    """

    classes: tuple[str, ...]
    splits: dict[str, SplitListing]
    ignored: int
    prefix: str = ""
    no_class: tuple[str, ...] = ()

    def __len__(self) -> int:
        return sum(len(split.paths) for split in self.splits.values())

    @property
    def note(self) -> str | None:
        """What a user should know of it: a class must not be lost without a word."""
        if not self.no_class:
            return None
        names, one = several([f"{name}/" for name in self.no_class], most=8), len(self.no_class) == 1
        return f"{names} {'holds' if one else 'hold'} no picture directly: {'no class' if one else 'no classes'}"


def ignored_note(ignored: int) -> str | None:
    """What is said of entries that were passed over; None where none were."""
    if not ignored:
        return None
    what = "file or folder" if ignored == 1 else "files or folders"
    return f"ignored {ignored:,} {what} not named like a {IMAGE_KINDS}"


def check_layout(entries: RawListing, where: str) -> Listing:
    """Settle classes, labels and order.

    Raises:
        DataError: A split is missing, a class is empty, or splits have different classes.
    """
    classes = class_names(entries, where)
    splits = {name: entries.splits[name] for name in SPLIT_NAMES if name in entries.splits}
    for name, by_class in splits.items():
        _refuse_other_classes(where, name, classes, by_class)
    empty = [f"{name}/{label}" for name, by_class in splits.items() for label in classes if not by_class[label]]
    if empty:
        raise DataError(f"{where}: no images in {several(empty, most=10)}", hint=EXPECTED_LAYOUT)
    listed = {name: _list_split(entries.folders.get(name, name), classes, splits[name]) for name in splits}
    return Listing(classes, listed, entries.ignored, no_class=tuple(sorted(entries.no_class)))


def class_names(entries: RawListing, where: str) -> tuple[str, ...]:
    """Sorted names of the class folders of ``train/``.

    Raises:
        DataError: There is no such folder, there are fewer than two, or a name is not UTF-8.
    """
    if "train" not in entries.splits:
        raise DataError(f"{where} has no train/ folder and no class folders", hint=EXPECTED_LAYOUT)
    classes = tuple(sorted(entries.splits["train"]))
    if len(classes) < 2:
        count = "no class folder" if not classes else f"one class folder alone ({classes[0]})"
        raise DataError(f"{where}/train holds {count}; a classifier needs two", hint=EXPECTED_LAYOUT)
    garbled = [name for name in classes if name.encode(errors="ignore").decode() != name]
    if garbled:
        raise DataError(f"{where}/train: class names that are not UTF-8: {several(garbled, most=10)}")
    return classes


def check_split_names(folders: Collection[str], where: str, *, holds_classes: Callable[[str], bool]) -> None:
    """Refuse folders that are meant as splits and would be taken as none: ``Test/``, or ``test/`` without ``train/``.

    Args:
        folders: Names of those side by side where ``train/`` would be.
        holds_classes: Whether one of them holds folders and no picture: ``Train/`` may be a class beside ``Bus/``.

    Raises:
        DataError: There is one.
    """
    for name in sorted(folders):
        plain = name.lower()
        if name != plain and plain in SPLIT_FOLDERS and plain not in folders and holds_classes(name):
            raise DataError(f"{where} has {name}/, in capitals", hint=f"rename it: {plain}/")
    alone = sorted(SPLIT_FOLDERS.keys() & folders)
    if alone and "train" not in folders:
        raise DataError(
            f"{where} has {alone[0]}/ and no train/ folder",
            hint=f"put the classes that are to be trained on into train/; {EXPECTED_LAYOUT}",
        )


def is_hidden(name: str) -> bool:
    """Whether a file or folder is passed over without a word: ``.DS_Store``, ``._cat.jpg``, ``.git``."""
    return name.startswith(".")


def _list_split(folder: str, classes: Sequence[str], by_class: dict[str, list[str]]) -> SplitListing:
    above = f"{folder}/" if folder else ""
    pairs = [(f"{above}{label}/{file}", i) for i, label in enumerate(classes) for file in sorted(by_class[label])]
    return SplitListing(tuple(path for path, _ in pairs), np.array([label for _, label in pairs], dtype=np.int64))


def _refuse_other_classes(where: str, split: str, classes: Sequence[str], by_class: dict[str, list[str]]) -> None:
    missing, extra = sorted(set(classes) - set(by_class)), sorted(set(by_class) - set(classes))
    if missing or extra:
        differences = [f"{split}/ lacks {several(missing, most=10)}"] if missing else []
        differences += [f"{split}/ alone has {several(extra, most=10)}"] if extra else []
        raise DataError(
            f"{where}: the classes of {split}/ and train/ differ: {'; '.join(differences)}",
            hint="every split needs the same class folders, spelled alike",
        )
