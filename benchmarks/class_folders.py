"""The official CIFAR files as an archive of class folders, which resnet9_cifar10 reads.

``python -m benchmarks.class_folders [--name cifar10|cifar100] [--data data] [--out data/cifar10.tgz]``

The archive holds ``train/<class>/<number>.png`` and ``test/<class>/<number>.png``; PNG loses nothing, so that its
pixels are the official ones. The same files give the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from distill.data.images import Split
from distill.data.splits import load_splits
from distill.recipe.schema import DataSpec

__all__ = ["main", "write_archive"]


def write_archive(spec: DataSpec, out: Path) -> int:
    """Write the archive, whole or not at all; the number of pictures in it."""
    dataset = load_splits(spec).dataset
    count, aside = 0, out.with_name(f".{out.name}.partial")
    out.parent.mkdir(parents=True, exist_ok=True)
    # without names and times in the gzip header, and without owners and times in the tar: the same bytes every time
    with (
        aside.open("wb") as file,
        gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=0, compresslevel=1) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for part, split in (("train", dataset.train), ("test", dataset.test)):
            assert split is not None, "CIFAR has both"
            count += _add(archive, part, split, dataset.classes)
    os.replace(aside, out)
    return count


def _add(archive: tarfile.TarFile, part: str, split: Split, classes: tuple[str, ...]) -> int:
    for position, label in enumerate(split.labels):
        pixels = split.take(np.array([position]))[0].transpose(1, 2, 0)
        png = io.BytesIO()
        Image.fromarray(pixels).save(png, format="png")
        entry = tarfile.TarInfo(f"{part}/{classes[label]}/{position:05d}.png")
        entry.size = len(png.getvalue())
        archive.addfile(entry, io.BytesIO(png.getvalue()))
    return len(split)


def main(arguments: list[str] | None = None) -> None:
    """Writes the archive, and says how many pictures it holds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.class_folders", description=__doc__.splitlines()[0])
    parser.add_argument("--name", choices=("cifar10", "cifar100"), default="cifar10")
    parser.add_argument("--data", default="data", help="folder with the official files (default: data)")
    parser.add_argument("--out", type=Path, help="the archive (default: data/NAME.tgz)")
    options = parser.parse_args(arguments)
    out = options.out or Path(options.data) / f"{options.name}.tgz"
    count = write_archive(DataSpec(name=options.name, root=options.data, val_fraction=0.0), out)
    print(f"{out}: {count:,} pictures")


if __name__ == "__main__":
    main()
