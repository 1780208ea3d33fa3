"""``hf``: image sets of Hugging Face's ``datasets``, from a folder or its hub, decoded once into the array cache."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from distill.data.images import Decoded
from distill.data.own import load_given
from distill.data.own_class_names import numbered_names
from distill.data.own_given import Given, once, understand
from distill.errors import DataError, MissingError, UsageError
from distill.events import Tell, silent
from distill.files import expanded
from distill.recipe.schema import DataSpec
from distill.text import first_line, several

__all__ = ["hugging_face_classes", "hugging_face_data", "load_hugging_face"]

_OURS = ("image", "label", "train", "val", "test")
_ASKED = ("path", "name", "data_dir", "data_files", "revision")
_SPLITS = {"train": ("train",), "val": ("validation", "valid", "val", "dev"), "test": ("test",)}


def load_hugging_face(spec: DataSpec, tell: Tell = silent) -> Decoded:
    """The images that ``data.root`` or ``data.options`` name.

    Raises:
        MissingError: ``datasets`` is not installed, or what is named is not there.
        UsageError: An option is unknown.
        DataError: It holds no images and labels; bad images are listed.
    """
    return load_given(spec, hugging_face_data(spec), tell)


def hugging_face_classes(spec: DataSpec) -> tuple[str, ...]:
    """Names of the classes; nothing is decoded.

    Raises:
        MissingError, UsageError, DataError: As :func:`load_hugging_face`.
    """
    return hugging_face_data(spec).classes


def hugging_face_data(spec: DataSpec) -> Given:
    """The same, nothing of it decoded.

    Raises:
        MissingError, UsageError, DataError: As :func:`load_hugging_face`.
    """
    options = spec.options.values
    if unknown := [each for each in options if each not in (*_OURS, *_ASKED)]:
        raise UsageError(
            f"data.options: {several(unknown, 5)}: not among {', '.join((*_ASKED, *_OURS))}",
            hint="of a function of one's own: data.name=python",
        )
    place = str(options.get("path", spec.root))
    if "path" not in options and not expanded(place).exists():
        raise MissingError(
            f"data.name: hf: there is no {place}",
            hint="name a folder: --set data.root=FOLDER; or a set of the hub: --set data.options.path=NAME",
        )
    return once(spec, partial(_understood, place, options))


def _understood(place: str, options: Mapping[str, Any]) -> Given:
    opened = _open(place, options)
    parts = opened if isinstance(opened, Mapping) else {"train": opened}
    names = {ours: _split(ours, options, parts, place) for ours in _SPLITS}
    rows = {ours: _rows(parts[name], options, f"{place}, {name}") for ours, name in names.items() if name is not None}
    return understand({**rows, "classes": rows["train"].names}, place)


def _open(place: str, options: Mapping[str, Any]) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingError(
            "data.name: hf needs Hugging Face's datasets, which is not installed",
            hint="pip install datasets",
        ) from error
    folder = expanded(place)
    saved = any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))
    asked = {name: value for name, value in options.items() if name in _ASKED and name != "path"}
    datasets.disable_progress_bars()  # stdout and stderr are ours
    try:
        if saved:
            return datasets.load_from_disk(str(folder))
        return datasets.load_dataset(str(folder) if folder.exists() else place, **asked)
    except (ConnectionError, FileNotFoundError) as error:
        lacks = "holds no data set" if folder.exists() else "is neither a folder here nor to be had from the hub"
        raise MissingError(
            f"data.name: hf: {place} {lacks}: {first_line(error)[:300]}",
            hint="name a folder that save_to_disk wrote, or one of pictures or tables: --set data.root=FOLDER",
        ) from error
    except Exception as error:  # readers of a dozen formats, which raise anything where a file is damaged
        raise DataError(f"data.name: hf: {place} cannot be read: {first_line(error)[:300]}") from error
    finally:
        datasets.enable_progress_bars()


def _split(ours: str, options: Mapping[str, Any], parts: Mapping[str, Any], place: str) -> str | None:
    """What it calls one of our splits; None where it has none."""
    asked = options.get(ours)
    taken = {str(options[other]) for other in _SPLITS if other != ours and options.get(other) is not None}
    usual = [name for name in _SPLITS[ours] if name not in taken]  # what is asked for as another one is that one alone
    found = next((name for name in ((str(asked),) if asked is not None else usual) if name in parts), None)
    if found is None and (asked is not None or ours == "train"):
        beside = " beside the one that is asked for by that name" if asked is None and "train" in taken else ""
        raise DataError(
            f"{place} has no split {asked or 'train'!r}{beside}: {several([str(each) for each in parts], 8)}",
            hint=f"name the one to take: --set data.options.{ours}=SPLIT",
        )
    return found


class _Rows:
    """One split as images and labels, for whoever asks row by row.

    Attributes:
        names: Of its classes.
        classes: The same where the set states them, else None: what is found among labels may lack some.
    """

    def __init__(self, rows: Any, image: str, label: str, names: tuple[str, ...], *, stated: bool) -> None:
        self.names = names
        self.classes = names if stated else None
        self.targets = list(rows[label])
        self._rows, self._image = rows, image

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, at: int) -> tuple[Any, Any]:
        return self._rows[at][self._image], self.targets[at]

    def __repr__(self) -> str:
        return f"{self._image} of {getattr(self._rows, '_fingerprint', '')}"  # datasets' own, of content and transforms


def _rows(split: Any, options: Mapping[str, Any], where: str) -> _Rows:
    kinds = {name: type(feature).__name__ for name, feature in split.features.items()}
    image = _column("image", "Image", options, kinds, where)
    label = _column("label", "ClassLabel", options, kinds, where)
    names = getattr(split.features[label], "names", None)
    stated = names is not None
    if names is None:
        names = _names(split, label, where)
    rows = _with_pictures(split.select_columns([image, label]), image)
    return _Rows(rows, image, label, tuple(names), stated=stated)


def _with_pictures(split: Any, image: str) -> Any:
    """Files in a table are pictures also where another program wrote it, which did not say so."""
    kind = split.features[image]
    is_file = isinstance(kind, Mapping) and set(kind) == {"bytes", "path"}
    if not is_file and getattr(kind, "dtype", None) not in ("binary", "large_binary"):
        return split
    import datasets

    return split.cast_column(image, datasets.Image())


def _names(split: Any, label: str, where: str) -> list[str]:
    """Classes that the set does not state: what its labels are called, or the numbers up to the largest."""
    with suppress(NotImplementedError, TypeError):  # of lists and mappings there is neither a set nor an order
        found = {each for each in split.unique(label) if each is not None}
        if found and all(isinstance(each, str) for each in found):
            return sorted(found)
        if found and all(isinstance(each, int) for each in found):
            return numbered_names(found, where)
    raise DataError(
        f"{where}: its labels, {label} ({split.features[label]}), are neither whole numbers nor names",
        hint="name another column: --set data.options.label=COLUMN",
    )


def _column(ours: str, kind: str, options: Mapping[str, Any], kinds: Mapping[str, str], where: str) -> str:
    if (asked := options.get(ours)) is not None:
        fitting = [str(asked)] if str(asked) in kinds else []
    else:
        fitting = [name for name, each in kinds.items() if each == kind] or [name for name in kinds if name == ours]
    if len(fitting) == 1:
        return fitting[0]
    columns = several([f"{name} ({each})" for name, each in kinds.items()], 8)
    what = f"no column {asked!r}" if asked is not None else f"{len(fitting) or 'no'} columns that may be the {ours}"
    raise DataError(f"{where} has {what}: {columns}", hint=f"name it: --set data.options.{ours}=COLUMN")
