"""``python``: images that the user's own code gives, decoded once into the array cache like all others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from distill.code import call_code, find_code, is_handed_over, offer_as, offer_code
from distill.data.array_cache import (
    ArrayWriter,
    array_key,
    open_or_build,
    peek_facts,
    read_split,
    require_space,
    write_labels,
)
from distill.data.decode import fit_rgb, strict_pillow
from distill.data.images import Decoded, Split, channel_stats
from distill.data.own_given import WANTED, Given, Images, is_data, once, pixels_of, reason, understand
from distill.data.test_split import decoded_set
from distill.data.twins import find_twins, row_digests
from distill.errors import DataError, MissingError
from distill.events import StageProgress, Tell, silent
from distill.recipe.schema import DataSpec
from distill.text import item_lines, several

__all__ = ["load_given", "load_own", "offer_data", "own_classes", "own_data"]

_KEY = "data.code"
_BLOCK = 256  # images that are written at once
_MAX_SHOWN = 10
_DIGITS = 16  # of a digest, in the name of what was handed over


def load_own(spec: DataSpec, tell: Tell = silent) -> Decoded:
    """What ``data.code`` gives, decoded, or what was decoded of the same before.

    Raises:
        UsageError: The code may not run, or it raised.
        MissingError: It is not there, or was in the memory of a process that is gone.
        DataError: It gave something else than images and labels; bad images are listed.
    """
    assert spec.code is not None, "the schema asks for it"
    try:
        given = own_data(spec)
    except MissingError as gone:
        if not is_handed_over(spec.code):
            raise
        entry = open_or_build(_key(_handed_digest(spec.code), spec), partial(_raise, gone), tell)
    else:
        return load_given(spec, given, tell)
    _refuse_bad(spec, entry.facts)
    return _decoded(spec, entry.splits, entry.facts)


def load_given(spec: DataSpec, given: Given, tell: Tell = silent) -> Decoded:
    """What was given, decoded, or what was decoded of the same before.

    Raises:
        DataError: Bad images, which are listed.
    """
    entry = open_or_build(_key(given.digest[:_DIGITS], spec), partial(_build, spec, given, tell), tell)
    _refuse_bad(spec, entry.facts)
    return _decoded(spec, entry.splits, entry.facts)


def own_data(spec: DataSpec) -> Given:
    """What ``data.code`` gives, nothing of it decoded.

    Raises:
        UsageError, MissingError, DataError: As :func:`load_own`.
    """
    assert spec.code is not None, "the schema asks for it"
    return once(spec, partial(_asked_for, spec, spec.code))


def _asked_for(spec: DataSpec, code: str) -> Given:
    thing = find_code(code, key=_KEY)
    if not is_data(thing):
        if not callable(thing):
            raise DataError(f"{_KEY}: {code} is {type(thing).__name__}", hint=WANTED)
        thing = call_code(thing, code, _KEY, **spec.options.values)
    return understand(thing, code)


def own_classes(spec: DataSpec) -> tuple[str, ...]:
    """Names of the classes; nothing is decoded.

    Raises:
        UsageError, MissingError, DataError: As :func:`load_own`.
    """
    try:
        return own_data(spec).classes
    except MissingError:
        facts = None
        if spec.code is not None and is_handed_over(spec.code) and spec.image_size != "auto":
            facts = peek_facts(_key(_handed_digest(spec.code), spec))
        if facts is None:
            raise
        return tuple(facts["classes"])


def offer_data(data: Any) -> str:
    """Make images available to recipes in this process: arrays, a Dataset, or a function that returns them.

    Runs trained on arrays or a Dataset from Python identify them by their content. Offering the same data again lets
    this process evaluate such runs; data that was already decoded is found without it.

    Returns:
        What names them in a recipe: ``data: {name: python, code: ...}``.

    Raises:
        DataError: The data is in no supported form.

    Example:
        >>> import numpy as np
        >>> offer_data((np.zeros((4, 8, 8), "uint8"), [0, 1, 0, 1])).startswith("handed_over:data_")
        True
    """
    if not is_data(data):
        if not callable(data):
            raise DataError(f"data: {type(data).__name__}", hint=WANTED)
        return offer_code(data)
    given = understand(data, "data")
    kind = type(data).__name__ if not isinstance(data, Mapping | tuple | list) else "data"
    return offer_as(f"{kind}_{given.digest[:_DIGITS]}", data)


def _handed_digest(reference: str) -> str:
    return reference.rpartition("_")[2]


def _key(digest: str, spec: DataSpec) -> str:
    return array_key("own", digest, spec.side)


def _raise(error: Exception, _aside: Path) -> Mapping[str, Any]:
    raise error


def _build(spec: DataSpec, given: Given, tell: Tell, aside: Path) -> Mapping[str, Any]:
    size, total = spec.side, sum(len(split) for split in given.splits.values())
    require_space(aside, total * 3 * size * size)
    bad, done = {}, 0
    with strict_pillow():
        for name, images in given.splits.items():
            with ArrayWriter(aside, name, np.zeros(len(images), dtype=np.int64), size) as writer:
                labels, bad[name] = _decode(given, images, writer, size, partial(_count, tell, done, total))
            write_labels(aside, name, labels)
            done += len(images)
    facts = {"classes": given.classes, "bad": bad, "counts": {name: len(each) for name, each in given.splits.items()}}
    _refuse_bad(spec, facts)
    stats = channel_stats(_without_bad("train", read_split(aside, "train"), facts))
    twins = find_twins({name: row_digests(read_split(aside, name), without=dict(bad[name])) for name in given.splits})
    return {**facts, "mean": stats.mean, "std": stats.std, "twins": twins}


def _count(tell: Tell, before: int, total: int, done: int) -> None:
    tell(StageProgress("decode", before + done, total))


def _decode(
    given: Given, images: Images, writer: ArrayWriter, size: int, count: Any
) -> tuple[np.ndarray, list[tuple[int, str]]]:
    """Write every image; their labels, and which ones are bad and why."""
    labels, bad = np.zeros(len(images), dtype=np.int64), []
    for start in range(0, len(images), _BLOCK):
        rows = range(start, min(start + _BLOCK, len(images)))
        block = np.zeros((len(rows), 3, size, size), dtype=np.uint8)
        for at, row in enumerate(rows):
            try:
                image, label = images.row(row)
                labels[row] = given.label(label)
                block[at] = _fitted(pixels_of(image), size)
            except Exception as error:  # the user's own code can raise anything: all that is bad is told at once
                bad.append((row, reason(error)))
        writer.write(start, block)
        count(rows.stop)
    return labels, bad


def _fitted(pixels: np.ndarray, size: int) -> np.ndarray:
    if pixels.shape[:2] == (size, size):
        return pixels.transpose(2, 0, 1)
    return fit_rgb(np.ascontiguousarray(pixels), size)


def _refuse_bad(spec: DataSpec, facts: Mapping[str, Any]) -> None:
    bad = [f"{name} {row}: {why}" for name, rows in facts["bad"].items() for row, why in rows]
    total = sum(facts["counts"].values())
    if not bad or (spec.skip_bad and len(bad) < total):
        return
    lines = [f"{len(bad):,} of {total:,} images of {spec.place} cannot be used:", *item_lines(bad, _MAX_SHOWN)]
    without = "; or go on without: --set data.skip_bad=true" if len(bad) < total else ""
    raise DataError("\n".join(lines), hint=f"mend them, or the code that gives them{without}")


def _decoded(spec: DataSpec, bases: Mapping[str, Split], facts: Mapping[str, Any]) -> Decoded:
    splits = {name: _without_bad(name, base, facts) for name, base in bases.items()}
    for name, part in splits.items():
        if len(part) == 0:
            raise DataError(f"every image of {spec.place}, {name}, is bad: nothing is left of it")
    found = decoded_set(spec, splits, facts, note=None)
    absent = np.setdiff1d(np.arange(len(found.classes)), found.train.labels)
    if not len(absent):
        return found
    without = f"no training image of {several([found.classes[at] for at in absent], 8)}"
    without += " (do labels begin at 1?)" if absent.tolist() == [0] and found.classes[0] == "0" else ""
    return replace(found, note=f"{found.note}\n{without}" if found.note else without)


def _without_bad(name: str, base: Split, facts: Mapping[str, Any]) -> Split:
    bad = [row for row, _ in facts["bad"][name]]
    return base.subset(np.setdiff1d(np.arange(len(base)), bad)) if bad else base
