"""What images of the user's own may look like, and what is found in them: splits, labels, classes, pixels.

Arrays with their labels, or a map-style Dataset of pairs; alone, or by the names of their splits.
"""

from __future__ import annotations

import hashlib
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from PIL import Image

from distill.code import code_sha256, import_path_of, told
from distill.data.dataset_digest import digest_array, digests_held
from distill.data.decode import BadImageError, orientation, to_rgb, upright
from distill.data.images import evenly_spaced_positions
from distill.data.own_class_names import class_names, counted_names, differing_names
from distill.errors import DataError
from distill.recipe.schema import DataSpec
from distill.text import first_line, several

__all__ = ["WANTED", "Given", "Images", "asking_once", "is_data", "once", "pixels_of", "reason", "understand"]

WANTED = (
    "{'train': (images, labels), 'test': (images, labels), 'classes': [...]}: uint8 (N, H, W, 3), (N, 3, H, W) or "
    "(N, H, W), and labels (N,); or a Dataset in the place of a pair; val, test and classes may be left out"
)
_SPLITS = ("train", "val", "test")
_PROBES = 64  # images of a Dataset that tell whether it is the one that was decoded before
_TWICE = 8  # of those, how many are asked for again: random transforms answer otherwise
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class Images(Protocol):
    """One split: images in any form, each with its label."""

    def __len__(self) -> int: ...

    def row(self, at: int) -> tuple[Any, Any]:
        """Image and label."""
        ...

    def check(self) -> None:
        """Refuse rows that are others each time they are asked for.

        Raises:
            DataError: There is one.
        """

    def digest(self) -> str:
        """Hex sha256 of what tells it from others."""
        ...


@dataclass(frozen=True)
class Given:
    """A data set that was understood.

    Attributes:
        splits: ``train``, and those of ``val`` and ``test`` that there are.
        classes: Names in the order of their labels.
        version: What it says of itself, if anything: another one is another data set.
    """

    splits: Mapping[str, Images]
    classes: tuple[str, ...]
    version: Any = None

    @cached_property
    def digest(self) -> str:
        """Hex sha256 of all of it."""
        digest = hashlib.sha256(f"{self.classes!r} {self.version!r}".encode("utf-8", "surrogateescape"))
        for name, split in self.splits.items():
            digest.update(f" {name} {len(split)} {split.digest()}".encode())
        return digest.hexdigest()

    def label(self, value: Any) -> int:
        """The number of a label, given as a number or a class's name.

        Raises:
            ValueError: It is neither.
        """
        if isinstance(value, str | np.str_):
            if str(value) not in self.classes:
                raise ValueError(f"label {str(value)!r} is no class: {several(list(self.classes), 8)}")
            return self.classes.index(str(value))
        try:
            number = operator.index(value)
        except TypeError:
            raise ValueError(f"label {_shown(value)} is neither a whole number nor a class's name") from None
        if not 0 <= number < len(self.classes):
            raise ValueError(f"label {number} of {len(self.classes)} classes, which count from 0")
        return number


def is_data(thing: Any) -> bool:
    """Whether this holds images itself; else it is a function that gives them."""
    return not isinstance(thing, type) and hasattr(thing, "__getitem__") and hasattr(thing, "__len__")


def understand(value: Any, where: str) -> Given:
    """Find splits, labels and classes in what was given.

    Args:
        where: What gave it, for messages.

    Raises:
        DataError: It is none of what is understood.
    """
    if not isinstance(value, Mapping):
        value = {"train": value}
    known = (*_SPLITS, "classes", "version")
    if unknown := [str(key) for key in value if key not in known]:
        raise DataError(f"{where} gave {several(unknown, 5)} beside {', '.join(known)}", hint=WANTED)
    splits = {name: _split(value[name], f"{where}, {name}") for name in _SPLITS if value.get(name) is not None}
    if "train" not in splits:
        raise DataError(f"{where} gave no training images", hint=WANTED)
    for name, split in splits.items():
        if len(split) == 0:
            raise DataError(f"{where} gave no images for {name}")
    stated = {name: getattr(value[name], "classes", None) for name in splits}
    names = value.get("classes") if value.get("classes") is not None else stated["train"]
    if names is None:
        labels = {name: split.labels if isinstance(split, _Pairs) else None for name, split in splits.items()}
        names = counted_names(labels, where)
    classes = class_names(names, where)
    for name, split in splits.items():
        # a label that is a number counts in the list of its own split: in another one it would name another class
        differing = differing_names(stated[name], stated["train"])
        if differing is not None and not _has_named_labels(split):
            raise DataError(
                f"{where}: the classes of {name} and train differ: {differing}",
                hint="give both the same list of classes, in one order; or labels that are names",
            )
        split.check()
    return Given(splits, classes, value.get("version"))


def _has_named_labels(split: Images) -> bool:
    with suppress(Exception):  # a bad image is told with all others when they are decoded
        return isinstance(split.row(0)[1], str)
    return False


_made: ContextVar[dict[str, Given] | None] = ContextVar("made", default=None)


@contextmanager
def asking_once() -> Iterator[None]:
    """Within this context the code that a recipe names is called once per data set: a call may take minutes."""
    token = _made.set({})
    try:
        yield
    finally:
        _made.reset(token)


def once(spec: DataSpec, make: Callable[[], Given]) -> Given:
    """What ``make`` gives for these data; within :func:`asking_once`, what it gave before."""
    made = _made.get()
    if made is None:
        return make()
    key = spec.model_dump_json(include={"name", "code", "root", "options"})
    if key not in made:
        made[key] = make()
    return made[key]


def _split(value: Any, where: str) -> Images:
    if isinstance(value, list) and len(value) == 2 and getattr(value[0], "ndim", 0) >= 3:  # no data set of two
        value = tuple(value)
    if isinstance(value, tuple) and len(value) == 2 and not isinstance(value[0], tuple):
        return _Pairs(_array(value[0], f"{where} images"), _labels(value[1], where), where)
    if is_data(value) and not isinstance(value, np.ndarray | str | bytes):
        return _Asked(value, where)
    raise DataError(f"{where} is {type(value).__name__}", hint=WANTED)


def _array(images: Any, where: str) -> Any:
    """A NumPy array; a list of pictures, which may differ in size, stays one."""
    if isinstance(images, list | tuple):
        return images
    found = _numpy(images, f"{where} are")
    if found.ndim not in (3, 4) or found.dtype == object:
        raise DataError(f"{where} are {found.dtype} of shape {found.shape}", hint=WANTED)
    if hasattr(images, "detach") and found.ndim == 4 and found.shape[1] in (1, 3):  # torch's layout
        found = found.transpose(0, 2, 3, 1)
    return found


def _as_array(value: Any) -> np.ndarray:
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)


def _numpy(value: Any, what: str) -> np.ndarray:
    try:
        return _as_array(value)
    except (TypeError, ValueError) as error:  # bfloat16 and sparse tensors; lists in a list that differ in length
        raise DataError(f"{what} no array: {first_line(error)}", hint=WANTED) from error


def _labels(labels: Any, where: str) -> np.ndarray:
    found = _numpy(labels, f"{where} labels are")
    if found.ndim == 1 and found.dtype == object:  # names or numbers out of a table; none of them may be missing
        found = np.asarray(found.tolist()) if {*map(type, found.tolist())} in ({str}, {int}) else found
    if found.ndim != 1 or found.dtype.kind not in "iuUT":
        raise DataError(
            f"{where} labels are {found.dtype} of shape {found.shape}: one whole number or name for each image",
            hint="labels.astype(int), or labels.astype(str)" if found.ndim == 1 else None,
        )
    return found


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Images and labels in memory."""

    images: Any
    labels: np.ndarray
    where: str

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise DataError(f"{self.where}: {len(self.images):,} images and {len(self.labels):,} labels")

    def __len__(self) -> int:
        return len(self.labels)

    def row(self, at: int) -> tuple[Any, Any]:
        return self.images[at], self.labels[at]

    def check(self) -> None:
        """Nothing: arrays do not change."""

    def digest(self) -> str:
        """Of every byte."""
        # told as Python writes them: the name "1" may be that of class 0
        digest = hashlib.sha256(repr(self.labels.tolist()).encode())
        if isinstance(self.images, np.ndarray):
            digest_array(digest, self.images)
        else:
            for image in self.images:
                digest.update(_bytes_of(image))
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class _Asked:
    """A map-style Dataset of images and labels."""

    dataset: Any
    where: str

    def __len__(self) -> int:
        return len(self.dataset)

    def row(self, at: int) -> tuple[Any, Any]:
        item = self.dataset[at]
        if not isinstance(item, tuple | list) or len(item) < 2:
            raise BadImageError(f"it is {type(item).__name__}, no pair of image and label")
        return item[0], item[1]

    def check(self) -> None:
        """Random transforms answer otherwise each time."""
        for at in self._probes()[:_TWICE]:
            if self._probe(at) != self._probe(at):
                raise DataError(
                    f"{self.where}: image {at} is another one each time it is asked for",
                    hint="leave random transforms out of it: the recipe's augment does them, anew in every epoch",
                )

    def digest(self) -> str:
        """Of what it holds in memory, what it says of itself, and some images: a cache is there not to ask for all."""
        kind = type(self.dataset)
        said = _ADDRESS.sub("", repr(self.dataset))[:10_000]
        digest = hashlib.sha256(f"{import_path_of(kind)} {code_sha256(import_path_of(kind), kind)} {said} ".encode())
        targets = getattr(self.dataset, "targets", None)
        if targets is not None and hasattr(targets, "__len__"):  # a property, too
            digest.update(repr(np.asarray(targets).tolist()).encode())
        before = digests_held(self.dataset)
        for at in self._probes():
            digest.update(self._probe(at))
        after = digests_held(self.dataset)
        for name, held in before.items():
            if after.get(name) == held:  # what asking changes is a cache or a count
                digest.update(f" {name} {held}".encode())
        return digest.hexdigest()

    def _probes(self) -> list[int]:
        return [int(at) for at in evenly_spaced_positions(len(self), _PROBES)]

    def _probe(self, at: int) -> bytes:
        try:
            image, label = self.row(at)
            return _bytes_of(image) + repr(label).encode()
        except Exception as error:  # told with all others when they are decoded
            return f"{type(error).__name__}: {error}".encode()


def _bytes_of(image: Any) -> bytes:
    if isinstance(image, Image.Image):
        found = f"{image.mode} {image.size} ".encode() + image.tobytes()  # which loads it, and its palette
        colours = b"" if image.palette is None else bytes(image.getpalette("RGBA") or ())  # what its bytes point at
        clear = repr(image.info["transparency"]).encode() if "transparency" in image.info else b""
        held = orientation(image)
        turned = b"" if held in (None, 1) else f" {held}".encode()
        return found + colours + clear + turned
    with suppress(TypeError, ValueError):  # of what is no array
        array = _as_array(image)
        if not array.dtype.hasobject:  # whose bytes are addresses
            return f"{array.dtype} {array.shape} ".encode() + array.tobytes()
    return _ADDRESS.sub("", repr(image)).encode("utf-8", "surrogateescape")  # that it is no image is told with all bad


# Pixels


def pixels_of(image: Any) -> np.ndarray:
    """An image as uint8 ``(H, W, 3)``.

    Raises:
        BadImageError: It is no image.
    """
    if isinstance(image, Image.Image):
        return np.asarray(to_rgb(upright(image)))
    array = _as_bytes(_channels_last(_as_array(image), first=hasattr(image, "detach")))
    return array if array.shape[2] == 3 else np.repeat(array, 3, axis=2)


def _channels_last(array: np.ndarray, *, first: bool) -> np.ndarray:
    if array.ndim == 2:
        return array[:, :, None]
    if array.ndim == 3:
        places = (0, 2) if first else (2, 0)
        for place in places:
            if array.shape[place] in (1, 3):
                return np.moveaxis(array, place, 2)
    raise BadImageError(f"shape {array.shape} is no image: (H, W), (H, W, 3) or (3, H, W)")


def _as_bytes(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind in "iu" and array.size and array.min() >= 0 and array.max() <= 255:
        return array.astype(np.uint8)
    if array.dtype.kind == "f":
        scaled = array.astype(np.float64) * 255
        whole = np.rint(scaled)
        if np.abs(scaled - whole).max(initial=0.0) < 1e-3 and whole.min(initial=0) >= 0 and whole.max(initial=0) <= 255:
            return whole.astype(np.uint8)  # torchvision's ToTensor of bytes
        if np.array_equal(array, np.rint(array)) and array.min(initial=0) >= 0 and array.max(initial=0) <= 255:
            raise BadImageError("float pixels that count to 255, where 1.0 is white: .astype('uint8') makes them bytes")
        raise BadImageError("float pixels that are not bytes over 255; leave normalising to the recipe")
    raise BadImageError(f"{array.dtype} pixels: bytes are wanted, 0 to 255")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def reason(error: Exception) -> str:
    """Why an image cannot be used, in a few words."""
    return str(error) if isinstance(error, BadImageError | ValueError) else told(error)
