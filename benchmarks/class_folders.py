"""The official CIFAR files as an archive of class folders, which resnet9_cifar10 reads.

``python -m benchmarks.class_folders [--name cifar10|cifar100] [--data data] [--out data/cifar10.tgz]
[--classes fox,skunk] [--limit 100]``

The archive holds ``train/<class>/<number>.png`` and ``test/<class>/<number>.png``; PNG loses nothing, so that its
pixels are the official ones. The same files give the same bytes. A few classes, and the first pictures of each, make
somebody's own small folder of it (docs/results/drafts.md).
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import tarfile
from collections.abc import Collection
from pathlib import Path

import numpy as np
from PIL import Image

from distill.data.images import Split
from distill.data.splits import load_splits
from distill.recipe.schema import DataSpec

__all__ = ["main", "write_archive"]


def write_archive(
    spec: DataSpec, out: Path, *, classes: Collection[str] | None = None, limit: int | None = None
) -> int:
    """Write the archive, whole or not at all; the number of pictures in it.

    Args:
        classes: The names of those that enter it; None: all.
        limit: So many training pictures of each class, the first ones; None: all.

    Raises:
        ValueError: There is no such class.
    """
    dataset = load_splits(spec).dataset
    wanted = {*dataset.classes} if classes is None else {*classes}
    if unknown := sorted(wanted - {*dataset.classes}):
        raise ValueError(f"{spec.name} has no class {', '.join(unknown)}")
    count, aside = 0, out.with_name(f".{out.name}.partial")
    out.parent.mkdir(parents=True, exist_ok=True)
    # without names and times in the gzip header, and without owners and times in the tar: the same bytes every time
    with (
        aside.open("wb") as file,
        gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=0, compresslevel=1) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for part, split, most in (("train", dataset.train, limit), ("test", dataset.test, None)):
            assert split is not None, "CIFAR has both"
            for position in _chosen(split.labels, [name in wanted for name in dataset.classes], most):
                _add(archive, f"{part}/{dataset.classes[split.labels[position]]}", split, position)
                count += 1
    os.replace(aside, out)
    return count


def _chosen(labels: np.ndarray, is_wanted: list[bool], limit: int | None) -> list[int]:
    taken = [0] * len(is_wanted)
    chosen = []
    for position, label in enumerate(labels):
        if is_wanted[label] and (limit is None or taken[label] < limit):
            taken[label] += 1
            chosen.append(position)
    return chosen


def _add(archive: tarfile.TarFile, folder: str, split: Split, position: int) -> None:
    pixels = split.take(np.array([position]))[0].transpose(1, 2, 0)
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, format="png")
    entry = tarfile.TarInfo(f"{folder}/{position:05d}.png")
    entry.size = len(png.getvalue())
    archive.addfile(entry, io.BytesIO(png.getvalue()))


def main(arguments: list[str] | None = None) -> None:
    """Writes the archive, and says how many pictures it holds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.class_folders", description=__doc__.splitlines()[0])
    parser.add_argument("--name", choices=("cifar10", "cifar100"), default="cifar10")
    parser.add_argument("--data", default="data", help="folder with the official files (default: data)")
    parser.add_argument("--out", type=Path, help="the archive (default: data/NAME.tgz)")
    parser.add_argument("--classes", help="some classes alone, with commas between them")
    parser.add_argument("--limit", type=int, help="so many training pictures of each class, the first ones")
    options = parser.parse_args(arguments)
    out = options.out or Path(options.data) / f"{options.name}.tgz"
    spec = DataSpec(name=options.name, root=options.data, val_fraction=0.0)
    classes = options.classes.split(",") if options.classes else None
    count = write_archive(spec, out, classes=classes, limit=options.limit)
    print(f"{out}: {count:,} pictures")


if __name__ == "__main__":
    main()
