"""Which decoded images are kept on this machine, and taking them away: they are decoded again where they are wanted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from distill.data.array_cache import arrays_folder, move_away
from distill.errors import RunError
from distill.files import regular
from distill.results.rows import DecodedSet
from distill.text import several

__all__ = ["list_decoded", "remove_decoded"]

_CLASSES = 3  # that tell a data set which keeps no place from others


def list_decoded() -> list[DecodedSet]:
    """Every finished entry of the cache, the newest last; what is damaged is listed too."""
    return sorted(_found(), key=lambda each: (each.made, each.folder))


def _found() -> Iterator[DecodedSet]:
    folder = arrays_folder()
    for path in folder.glob("[!.]*") if folder.is_dir() else ():
        with suppress(OSError):  # gone meanwhile
            if path.is_dir():
                yield _described(path)


def _described(path: Path) -> DecodedSet:
    size = sum(each.stat().st_size for each in path.iterdir() if each.is_file())
    made = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
    source, counts, side = "damaged", dict[str, int](), None
    with suppress(OSError, ValueError, KeyError, TypeError, IndexError):
        tree = json.loads(regular(path / "meta.json").read_text())
        shapes = {str(name): record["shape"] for name, record in tree["arrays"].items()}
        facts = tree["facts"]
        source = str(facts.get("root") or f"classes {several(list(map(str, facts['classes'])), _CLASSES)}")
        counts = {name: int(shape[0]) for name, shape in shapes.items()}
        side = int(next(iter(shapes.values()))[-1]) if shapes else None
    return DecodedSet(str(path), source, counts, side, size / 1e6, made)


def remove_decoded(sets: list[DecodedSet]) -> None:
    """Delete entries. A process that reads one goes on with what it has open.

    Raises:
        RunError: One cannot be deleted.
    """
    for each in sets:
        try:
            shutil.rmtree(move_away(Path(each.folder)))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise RunError(f"{each.folder} cannot be deleted: {error.strerror or error}") from error
