"""Classes of images of one's own: stated, or found in their labels; and whether all splits mean the same ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from distill.errors import DataError
from distill.text import several

__all__ = ["class_names", "counted_names", "differing_names", "numbered_names"]

_MOST = 100_000  # labels from there on are dates, or numbers of persons


def class_names(stated: Any, where: str) -> tuple[str, ...]:
    """Names in the order of their labels.

    Raises:
        DataError: It is no list, or not one of two names or more, each once.
    """
    if isinstance(stated, set | frozenset | Mapping):  # a set has another order each time
        raise _no_list(stated, where)
    try:
        classes = tuple(str(name) for name in stated)
    except TypeError:  # one number
        raise _no_list(stated, where) from None
    if isinstance(stated, str) or len(classes) < 2 or len(set(classes)) < len(classes):
        what = f"one class alone ({classes[0]})" if len(set(classes)) == 1 else f"classes {several(list(classes), 8)}"
        raise DataError(f"{where}: {what}", hint="a classifier needs two classes or more, each name once")
    return classes


def _no_list(stated: Any, where: str) -> DataError:
    return DataError(f"{where}: classes are {type(stated).__name__}", hint="a list in the order of their labels")


def counted_names(labels: Mapping[str, np.ndarray | None], where: str) -> list[str]:
    """From the labels of each split: their names in order, or the numbers up to the largest.

    Args:
        labels: None of a split whose labels are not known before all of its images are asked for.

    Raises:
        DataError: Some are not known, differ in kind, or are no numbers of classes.
    """
    known = {name: each for name, each in labels.items() if each is not None}
    if len(known) < len(labels):
        raise DataError(f"{where} does not name its classes", hint="{'train': dataset, 'classes': ['cat', 'dog']}")
    named = {name: each.dtype.kind in "UT" for name, each in known.items()}
    if len({*named.values()}) > 1:
        kinds = ", ".join(f"{name} {'names' if is_name else 'numbers'}" for name, is_name in named.items())
        raise DataError(f"{where}: its labels differ in kind ({kinds})", hint="give all splits names, or all numbers")
    if all(named.values()):
        return sorted({str(name) for each in known.values() for name in each})
    return numbered_names((int(edge) for each in known.values() for edge in (each.min(), each.max())), where)


def numbered_names(labels: Iterable[int], where: str) -> list[str]:
    """The numbers up to the largest of these labels; single ones below 0 are of bad images.

    Raises:
        DataError: They are no numbers of classes.
    """
    found = [*labels]
    least, most = min(found), max(found)
    if (least < 0 and most < 1) or most >= _MOST:
        raise DataError(f"{where}: its labels are {least} to {most}", hint="count the classes from 0; or give names")
    return [str(number) for number in range(most + 1)]


def differing_names(own: Any, train: Any) -> str | None:
    """Both lists of classes where they are not the same; None where they are, or what is stated is no list."""
    try:
        lists = [[str(name) for name in each] for each in (own, train)]
    except TypeError:
        return None
    return None if lists[0] == lists[1] else "; ".join(several(each, 8) for each in lists)
