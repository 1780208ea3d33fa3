"""Folders of pictures at growing sizes: time, peak memory, and images/s beside a DataLoader of the same cores.

``python -m benchmarks.large --work DIR [--out docs/results] [--images 5000,20000,80000] [--side 160] [--cores 1]``

Each size is a folder of synthetic JPEGs (320 x 256 pixels; 5,000 of them differ, the rest are hard links to them):
decoded and kept, read from the memory map, and decoded for every batch; each stage in a process of its own, held to
``--cores`` cores. What is measured already is in ``large.json`` and is not measured again: give the command again after
a stop. A size's files are removed when it is done.
"""

from __future__ import annotations

import os

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # read once, when torch is imported
os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import contextlib
import json
import multiprocessing
import resource
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from benchmarks.memory import Watch
from distill.files import write_json

CLASSES = 20
DIFFERENT = 5_000
HEIGHT, WIDTH = 256, 320
BATCH = 64
Row = dict[str, Any]
Decoded = Literal["kept", "per_batch"]


def write_folder(root: Path, images: int) -> None:
    """``train/<class>/*.jpg`` and a small ``test/``, whole when this returns; what is there is kept."""
    generator = np.random.default_rng(0)
    for split, count in (("test", 5 * CLASSES), ("train", images)):
        for number in range(count):
            path = root / split / f"class{number % CLASSES:02d}" / f"{number:06d}.jpg"
            same = number % DIFFERENT
            coarse = generator.integers(0, 256, (32, 40, 3), dtype=np.uint8) if number == same else None
            if path.exists():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            if coarse is None:
                os.link(root / split / f"class{same % CLASSES:02d}" / f"{same:06d}.jpg", path)
            else:
                aside = path.with_suffix(".aside")
                picture = Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
                picture.save(aside, "JPEG", quality=90)
                aside.rename(path)


def _splits(root: Path, side: int, decoded: Decoded) -> Any:
    from distill.data.splits import load_splits
    from distill.recipe.schema import DataSpec

    return load_splits(DataSpec(name="folder", root=str(root), image_size=side, decoded=decoded, val_fraction=0))


def _batches(splits: Any, count: int, *, seed: int) -> Iterator[int]:
    """Sizes of the first ``count`` augmented batches of an epoch."""
    from distill.data.batches import Loader
    from distill.data.views import plan_view
    from distill.recipe.schema import AugmentSpec

    images = len(splits.train)
    order = np.random.default_rng(seed).permutation(images)[: count * BATCH]
    view = plan_view(AugmentSpec(crop_padding=8, hflip=0.5), n=images, image_size=splits.train.image_size, view=seed)
    loader = Loader(splits.train, device="cpu")
    with contextlib.closing(loader.epoch(order, view, np.zeros(images, np.int64), BATCH).batches()) as batches:
        for batch in batches:
            yield batch.size


def stage_imports(_root: Path, _side: int, _batches_: int, _cores: int) -> Row:
    """What every process below holds before it has done anything."""
    import distill.data.batches
    import distill.data.splits  # noqa: F401

    return {"images": 0}


def stage_decode(root: Path, side: int, _batches_: int, _cores: int) -> Row:
    """Every picture to the kept array: listed, decoded, checksummed, its mean found."""
    return {"images": len(_splits(root, side, "kept").dataset.train)}


def stage_open(root: Path, side: int, _batches_: int, _cores: int) -> Row:
    """The kept array opened again: its checksum read."""
    return {"images": len(_splits(root, side, "kept").dataset.train)}


def stage_look(root: Path, side: int, _batches_: int, _cores: int) -> Row:
    """Every picture looked at once, nothing kept: what decoding for every batch costs before the first."""
    return {"images": len(_splits(root, side, "per_batch").dataset.train)}


def stage_epoch_kept(root: Path, side: int, batches: int, _cores: int) -> Row:
    """Batches in random order, from the memory map."""
    return {"images": sum(_batches(_splits(root, side, "kept"), batches, seed=1))}


def stage_epoch_per_batch(root: Path, side: int, batches: int, _cores: int) -> Row:
    """The same, decoded for every batch."""
    return {"images": sum(_batches(_splits(root, side, "per_batch"), batches, seed=1))}


def stage_beside(root: Path, side: int, batches: int, cores: int) -> Row:
    """In turns: both ways of distill's, and a DataLoader; images/s of each turn from its first batch on.

    What comes before a first batch is left out of all three: a DataLoader starts its processes then.
    """
    import torch
    from torchvision import datasets, transforms

    torch.set_num_threads(1)
    turns: dict[str, list[float]] = {"kept": [], "per_batch": [], "torchvision": []}
    cut = transforms.Compose([transforms.Resize(side), transforms.CenterCrop(side), transforms.PILToTensor()])
    folder = datasets.ImageFolder(str(root / "train"), cut)
    kept, per_batch = _splits(root, side, "kept"), _splits(root, side, "per_batch")

    def loaded(seed: int) -> Iterator[int]:
        chosen = np.random.default_rng(seed).permutation(len(folder))[: batches * BATCH]
        loader = torch.utils.data.DataLoader(
            torch.utils.data.Subset(folder, chosen.tolist()), batch_size=BATCH, num_workers=cores
        )
        for images, _ in loader:
            yield len(images)

    for seed in range(5):
        ways: dict[str, Callable[[], Iterator[int]]] = {
            "kept": partial(_batches, kept, batches, seed=seed),
            "per_batch": partial(_batches, per_batch, batches, seed=seed),
            "torchvision": partial(loaded, seed),
        }
        for name, way in ways.items():
            sizes = way()
            next(sizes)
            began = time.perf_counter()
            turns[name].append(sum(sizes) / (time.perf_counter() - began))
    ratios = {
        name: [mine / theirs for mine, theirs in zip(turns[name], turns["torchvision"], strict=True)]
        for name in ("kept", "per_batch")
    }
    return {"images": 5 * batches * BATCH, "images_per_s": turns, "ratio_to_torchvision": ratios}


STAGES: dict[str, Callable[[Path, int, int, int], Row]] = {
    "imports": stage_imports,
    "decode": stage_decode,
    "open": stage_open,
    "epoch kept": stage_epoch_kept,
    "look": stage_look,
    "epoch per batch": stage_epoch_per_batch,
    "beside": stage_beside,
}


def _run(stage: str, root: Path, how: tuple[int, int, int], pipe: Any) -> None:
    side, batches, cores = how
    stage_imports(root, side, batches, cores)  # whose time is nobody's here
    allowed = sorted(os.sched_getaffinity(0))[-cores:]
    os.sched_setaffinity(0, allowed)
    watch, began, before = Watch(), time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    with watch.watching():
        row = STAGES[stage](root, side, batches, cores)
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    pipe.send(row | {
        "stage": stage, "seconds": time.perf_counter() - began, "cpu_s": cpu,
        "anon_mb": watch.anon_mb, "file_mb": watch.file_mb,
    })  # fmt: skip


def measure(root: Path, stage: str, *, side: int, batches: int, cores: int) -> Row:
    """One stage, in a new process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(stage, root, (side, batches, cores), theirs))
    process.start()
    theirs.close()
    try:
        return dict(ours.recv())
    except EOFError:
        sys.exit(f"error: {stage} ended without a result")
    finally:
        process.join()


def measure_all(work: Path, out: Path, *, images: list[int], side: int, batches: int, cores: int) -> list[Row]:
    """Every stage at every size that ``large.json`` has not; each row is on disk before the next begins."""
    from benchmarks.augment import environment

    path = out / "large.json"
    rows: list[Row] = json.loads(path.read_text())["rows"] if path.exists() else []
    has = {(row["size"], row["stage"], row["side"], row["cores"]) for row in rows}
    for size in images:
        todo = [stage for stage in STAGES if (size, stage, side, cores) not in has]
        if not todo:
            continue
        root = work / f"pictures-{size}"
        print(f"writing {size:,} pictures ...", file=sys.stderr, flush=True)
        write_folder(root, size)
        os.environ["DISTILL_CACHE"] = str(work / f"cache-{size}")
        for stage in todo:
            print(f"{size:,}: {stage} ...", file=sys.stderr, flush=True)
            row = measure(root, stage, side=side, batches=batches, cores=cores)
            rows.append(row | {"size": size, "side": side, "cores": cores, "batches": batches})
            write_json(path, {"machine": environment(), "rows": rows})
        shutil.rmtree(work / f"cache-{size}", ignore_errors=True)
        shutil.rmtree(root)
    return rows


def table(rows: list[Row]) -> str:
    """The rows as Markdown: a line a size and stage, and the ratios below."""
    lines = [
        "| images | stage | seconds | of CPU | images a second of CPU | anonymous, MB | file, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row["stage"] != "beside":
            speed = f"{row['images'] / row['cpu_s']:,.0f}" if row["images"] else ""
            lines.append(
                f"| {row['size']:,} | {row['stage']} | {row['seconds']:,.1f} | {row['cpu_s']:,.1f} | {speed} "
                f"| {row['anon_mb']:,.0f} | {row['file_mb']:,.0f} |"
            )
    lines += ["", "| images | kept / torchvision | decoded for every batch / torchvision |", "|---|---|---|"]
    for row in rows:
        if row["stage"] == "beside":
            kept, per_batch = (_spread(row["ratio_to_torchvision"][name]) for name in ("kept", "per_batch"))
            lines.append(f"| {row['size']:,} | {kept} | {per_batch} |")
    return "\n".join(lines) + "\n"


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f}, n = {len(values)})"


def main(arguments: list[str] | None = None) -> None:
    """Measures what is missing, writes ``large.json``, prints a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large", description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="a folder for pictures and arrays, 8 GB at most")
    parser.add_argument("--out", type=Path, default=Path("docs/results"), help="where large.json lies")
    parser.add_argument("--images", default="5000,20000,80000", help="sizes (default: 5000,20000,80000)")
    parser.add_argument("--side", type=int, default=160, help="kept side in pixels (default: 160)")
    parser.add_argument("--batches", type=int, default=20, help=f"of {BATCH} images, an epoch's first (default: 20)")
    parser.add_argument("--cores", type=int, default=1, help="of each way (default: 1)")
    options = parser.parse_args(arguments)
    if not Path("/proc/self/status").exists():
        parser.exit(4, "error: memory is sampled from /proc, which only Linux has\n")
    try:
        sizes = [int(text) for text in options.images.split(",")]
    except ValueError:
        parser.error(f"--images {options.images}: whole numbers, with commas between")
    print(table(measure_all(
        options.work, options.out, images=sizes, side=options.side, batches=options.batches, cores=options.cores
    )))  # fmt: skip


if __name__ == "__main__":
    main()
