"""Peak memory of decoding a folder of images and of training on it.

``python -m benchmarks.memory [--json] [--images 100000] [--size 64] [--steps 100]``

The images are small JPEG files, made in a temporary folder that is removed afterwards. Each stage runs in a process of
its own, which samples its memory: ``anon`` is what the process itself holds; ``file`` is what it maps of the decoded
array, pages that the system drops when somebody else needs the room.
"""

from __future__ import annotations

import os

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # read once, when torch is imported
os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import io
import json
import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CLASSES = 20
SAMPLE_S = 0.01
RECIPE = """
schema_version: 1
name: memory
role: student
data: {{name: folder, root: '{root}', image_size: {size}}}
augment: {{crop_padding: 4, hflip: 0.5, views: 1}}
model: {{source: students, name: resnet, blocks: [1, 1, 1], channels: [16, 32, 64], strides: [1, 2, 2],
        input_size: {size}}}
train: {{epochs: 1, batch_size: 128, channels_last: true, compile: false, precision: fp32}}
"""


@dataclass(frozen=True)
class Peak:
    """Megabytes of a stage's process at their highest, and how long it took."""

    stage: str
    anon_mb: float
    file_mb: float
    seconds: float
    images: int


def write_folder(root: Path, *, images: int, size: int) -> None:
    """``train/<class>/*.jpg`` and a small ``test/``: smooth random pictures, each its own."""
    generator = np.random.default_rng(0)
    for split, count in (("train", images), ("test", CLASSES * 5)):
        for label in range(CLASSES):
            (root / split / f"class{label:02d}").mkdir(parents=True)
        for number in range(count):
            coarse = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(coarse).resize((size, size), Image.Resampling.BILINEAR).save(buffer, "JPEG", quality=85)
            (root / split / f"class{number % CLASSES:02d}" / f"{number:06d}.jpg").write_bytes(buffer.getvalue())


class Watch:
    """The highest anonymous and file-backed memory of this process since it began watching, in MB."""

    def __init__(self) -> None:
        self.anon_mb = self.file_mb = 0.0

    def look(self) -> None:
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        self.anon_mb, self.file_mb = (
            max(before, float(fields[name].split()[0]) / 1024)
            for before, name in ((self.anon_mb, "RssAnon"), (self.file_mb, "RssFile"))
        )

    @contextmanager
    def watching(self) -> Iterator[None]:
        done = threading.Event()

        def sample() -> None:
            while not done.wait(SAMPLE_S):
                self.look()

        thread = threading.Thread(target=sample, daemon=True)
        self.look()
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            self.look()


def imports(root: str, size: int, steps: int) -> int:
    """What everything below costs before it has done anything."""
    import distill.pipeline.worker  # noqa: F401

    return 0


def decode(root: str, size: int, steps: int) -> int:
    """Every file to one uint8 array on disk, checksummed; the mean and spread of its pixels."""
    return len(_splits(root, size).dataset.train)


def train(root: str, size: int, steps: int) -> int:
    """The first steps of an epoch over all images, which are read from that array."""
    from lightning_fabric import Fabric

    from distill.events import StepDone
    from distill.pipeline.build import build_job, build_network
    from distill.pipeline.context import Context, Options
    from distill.pipeline.objective import find_objective
    from distill.recipe import parse_recipe
    from distill.train.loop import fit

    splits = _splits(root, size)
    recipe = parse_recipe(RECIPE.format(root=root, size=size), source="benchmarks.memory")
    fabric = Fabric(accelerator="cpu", devices=1)
    context = Context(recipe, Options(), fabric.device, params=0, splits=splits)
    done = 0
    module = build_network(context, splits)
    objective = find_objective(recipe, splits, None)
    job = build_job(fabric, context, splits, None, module=module, objective=objective, path=Path(root), saves=False)
    for event in fit(job, fabric):
        if isinstance(event, StepDone):
            done = event.step
            if done == steps:
                break
    return done * recipe.train.batch_size


def _splits(root: str, size: int) -> Any:
    from distill.data.splits import load_splits
    from distill.recipe.schema import DataSpec

    return load_splits(DataSpec(name="folder", root=root, image_size=size))


STAGES: dict[str, Callable[[str, int, int], int]] = {"imports": imports, "decode": decode, "train": train}


def _run_stage(stage: str, root: str, size: int, steps: int, pipe: Any) -> None:
    watch, started = Watch(), time.perf_counter()
    with watch.watching():
        images = STAGES[stage](root, size, steps)
    pipe.send(Peak(stage, watch.anon_mb, watch.file_mb, time.perf_counter() - started, images))


def measure(root: Path, *, size: int, steps: int) -> list[Peak]:
    """Every stage in a new process."""
    peaks, context = [], multiprocessing.get_context("spawn")
    for stage in STAGES:
        print(f"{stage} ...", file=sys.stderr, flush=True)
        ours, theirs = context.Pipe()
        process = context.Process(target=_run_stage, args=(stage, str(root), size, steps, theirs))
        process.start()
        theirs.close()
        peaks.append(ours.recv())
        process.join()
    return peaks


def main(arguments: list[str] | None = None) -> None:
    """Measures and prints a table, or one JSON document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    parser.add_argument("--images", type=int, default=100_000, help="training images (default: 100000)")
    parser.add_argument("--size", type=int, default=64, help="their side in pixels (default: 64)")
    parser.add_argument("--steps", type=int, default=100, help="training steps of 128 images (default: 100)")
    options = parser.parse_args(arguments)
    if not Path("/proc/self/status").exists():
        parser.exit(4, "error: memory is sampled from /proc, which only Linux has\n")
    with tempfile.TemporaryDirectory(prefix="distill-memory-") as folder:
        root = Path(folder) / "pictures"
        os.environ["DISTILL_CACHE"] = str(Path(folder) / "cache")
        print(f"writing {options.images:,} images ...", file=sys.stderr, flush=True)
        write_folder(root, images=options.images, size=options.size)
        peaks = measure(root, size=options.size, steps=options.steps)
    _print(options, peaks)


def _print(options: argparse.Namespace, peaks: list[Peak]) -> None:
    from rich.console import Console
    from rich.table import Table

    from benchmarks.augment import environment

    array_mb = options.images * 3 * options.size**2 / 2**20
    shape = {"images": options.images, "image_size": options.size, "array_mb": array_mb}
    if options.json:
        rows = [asdict(peak) for peak in peaks]
        print(json.dumps({"benchmark": "memory", **shape, **environment(), "rows": rows}))
        return
    table = Table(title=f"{options.images:,} images of {options.size} pixels: {array_mb:,.0f} MB decoded")
    for column in ("stage", "own memory, MB", "mapped, MB", "seconds", "images"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for peak in peaks:
        numbers = (f"{peak.anon_mb:,.0f}", f"{peak.file_mb:,.0f}", f"{peak.seconds:.1f}", f"{peak.images:,}")
        table.add_row(peak.stage, *numbers)
    Console().print(table)


if __name__ == "__main__":
    main()
