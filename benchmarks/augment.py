"""Microseconds an image for augmentation: planned batches against PIL and torchvision, on one CPU thread.

``python -m benchmarks.augment [--json] [--rounds 20]``

Times are CPU time of the one thread, so that other processes do not count; the pipelines take turns, batch by batch,
so that a machine that slows down slows all of them. The images are noise; none of the operations looks at what it
moves. Reading is included: each pipeline fetches its images from memory by index and hands over one batch tensor.
torchvision's batched transforms draw once for the whole batch, and its MixUp and CutMix one weight for the whole batch;
ours draw for each image.
"""

from __future__ import annotations

import os

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # read once, when torch is imported

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torchvision import transforms as v1
from torchvision.transforms import InterpolationMode, v2

from distill.data.batches import Loader
from distill.data.images import Split
from distill.data.views import epoch_order, plan_view
from distill.recipe.schema import AugmentSpec

IMAGES, SIZE, BATCH, CLASSES = 10_000, 32, 128, 10
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CROP_FLIP = {"crop_padding": 4, "hflip": 0.5}

Step = Callable[[], Tensor]
Transform = Callable[..., Any]  # torchvision's


@dataclass(frozen=True)
class Case:
    """One augmentation in everybody's words: our recipe, and what comes after or before torchvision's crop and flip."""

    name: str
    recipe: dict[str, Any]
    normalise: bool = False
    rotation: bool = False
    erase: bool = False
    looks: Callable[[Any], Transform] | None = None
    mix: Callable[[], Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] | None = None


@dataclass(frozen=True)
class Timing:
    """CPU microseconds an image over ``rounds`` batches."""

    case: str
    pipeline: str
    median_us: float
    quartile_1_us: float
    quartile_3_us: float
    min_us: float
    rounds: int


CASES = (
    Case("crop+flip", CROP_FLIP),
    Case("crop+flip+normalise", CROP_FLIP, normalise=True),
    Case("crop+flip+erase", CROP_FLIP | {"erase": {"size": 8}}, erase=True),
    Case(
        "crop+flip+mixup", CROP_FLIP | {"mixup": {"alpha": 0.2}}, mix=lambda: v2.MixUp(alpha=0.2, num_classes=CLASSES)
    ),
    Case("crop+flip+cutmix", CROP_FLIP | {"cutmix": {"alpha": 1.0}}, mix=lambda: v2.CutMix(num_classes=CLASSES)),
    Case("crop+flip+rotation", CROP_FLIP | {"rotation": 15.0}, rotation=True),
    Case(
        "crop+flip+jitter",
        CROP_FLIP | {"jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}},
        looks=lambda v: v.ColorJitter(0.4, 0.4, 0.4, 0.1),
    ),
    Case("crop+flip+rand_augment", CROP_FLIP | {"rand_augment": {}}, looks=lambda v: v.RandAugment()),
    Case("crop+flip+trivial_augment", CROP_FLIP | {"trivial_augment": {}}, looks=lambda v: v.TrivialAugmentWide()),
)


class Noise:
    """Images and labels, in the layout that each library reads: planes for torch, interleaved for PIL."""

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self.planes = generator.integers(0, 256, (IMAGES, 3, SIZE, SIZE), dtype=np.uint8)
        self.labels = generator.integers(0, CLASSES, IMAGES)
        self.interleaved = np.ascontiguousarray(self.planes.transpose(0, 2, 3, 1))
        self.tensor, self.label_tensor = torch.from_numpy(self.planes), torch.from_numpy(self.labels)

    def indices(self) -> Iterator[Tensor]:
        for epoch in count():
            yield from torch.from_numpy(epoch_order(0, epoch, IMAGES)).split(BATCH)[: IMAGES // BATCH]


def ours(case: Case, noise: Noise) -> Step:
    """Planned batches out of a loader, epoch after epoch."""
    loader = Loader(Split(noise.planes, noise.labels), device="cpu")
    augment = AugmentSpec.model_validate(case.recipe)
    mean, scale = (255 * torch.tensor(value)[:, None, None] for value in (MEAN, STD))

    def epochs() -> Iterator[Tensor]:
        for epoch in count():
            view = plan_view(augment, n=IMAGES, image_size=SIZE, view=epoch)
            order = epoch_order(0, epoch, IMAGES)[: IMAGES // BATCH * BATCH]
            for batch in loader.epoch(order, view, np.zeros(IMAGES, dtype=np.int64), BATCH).batches():
                yield batch.images.float().sub_(mean).div_(scale) if case.normalise else batch.images

    return epochs().__next__


def planning_us(case: Case) -> float:
    """Microseconds an image to plan a view, which happens once an epoch and is not in the batches' time."""
    augment = AugmentSpec.model_validate(case.recipe)
    times = []
    for view in range(6):
        start = time.process_time()
        plan_view(augment, n=IMAGES, image_size=SIZE, view=view)
        times.append(time.process_time() - start)
    return statistics.median(times[1:]) / IMAGES * 1e6


def pil(case: Case, noise: Noise) -> Step:
    """torchvision's classic transforms, image by image, as its data sets apply them."""
    steps: list[Transform] = [v1.RandomCrop(SIZE, padding=4, padding_mode="reflect"), v1.RandomHorizontalFlip()]
    steps += [v1.RandomRotation(15, InterpolationMode.BILINEAR)] if case.rotation else []
    steps += [case.looks(v1)] if case.looks else []
    steps += [v1.ToTensor()]
    steps += [v1.Normalize(MEAN, STD)] if case.normalise else []
    steps += [v1.RandomErasing(p=1.0, scale=(1 / 16, 1 / 16), ratio=(1, 1))] if case.erase else []
    transform = v1.Compose(steps)
    return _stepped(case, noise, lambda i: transform(Image.fromarray(noise.interleaved[i])))


def v2_images(case: Case, noise: Noise) -> Step:
    """torchvision v2, image by image, on tensors."""
    transform = _v2_transform(case)
    return _stepped(case, noise, lambda i: transform(noise.tensor[i]))


def v2_batch(case: Case, noise: Noise) -> Step:
    """torchvision v2 on whole batches: the same crop, flip and square for all images of one."""
    transform, mix, indices = _v2_transform(case), case.mix and case.mix(), noise.indices()

    def step() -> Tensor:
        index = next(indices)
        batch = transform(noise.tensor[index])
        return mix(batch, noise.label_tensor[index])[0] if mix else batch

    return step


def _v2_transform(case: Case) -> Callable[[Tensor], Tensor]:
    steps: list[Transform] = [v2.RandomCrop(SIZE, padding=4, padding_mode="reflect"), v2.RandomHorizontalFlip()]
    steps += [v2.RandomRotation(15, InterpolationMode.BILINEAR)] if case.rotation else []
    steps += [case.looks(v2)] if case.looks else []
    steps += [v2.ToDtype(torch.float32, scale=True)] if case.normalise or case.mix else []
    steps += [v2.Normalize(MEAN, STD)] if case.normalise else []
    steps += [v2.RandomErasing(p=1.0, scale=(1 / 16, 1 / 16), ratio=(1, 1))] if case.erase else []
    return v2.Compose(steps)


def _stepped(case: Case, noise: Noise, load: Callable[[int], Tensor]) -> Step:
    """Loads images one by one, stacks them, and mixes the batch where the case asks for it."""
    mix, indices = case.mix and case.mix(), noise.indices()

    def step() -> Tensor:
        index = next(indices)
        batch = torch.stack([load(i) for i in index.tolist()])
        return mix(batch, noise.label_tensor[index])[0] if mix else batch

    return step


PIPELINES: dict[str, Callable[[Case, Noise], Step]] = {
    "distill": ours,
    "v2, batched": v2_batch,
    "v2, by image": v2_images,
    "PIL, by image": pil,
}


def measure(case: Case, noise: Noise, rounds: int) -> list[Timing]:
    """Times every pipeline in turn, in another order each round."""
    steps = {name: build(case, noise) for name, build in PIPELINES.items()}
    for step in steps.values():
        step(), step()
    names = list(steps)
    times: dict[str, list[float]] = {name: [] for name in names}
    for round_ in range(rounds):
        for name in names[round_ % len(names) :] + names[: round_ % len(names)]:
            start = time.process_time()
            steps[name]()
            times[name].append((time.process_time() - start) / BATCH * 1e6)
    return [_timing(case.name, name, times[name]) for name in names]


def _timing(case: str, pipeline: str, times_us: list[float]) -> Timing:
    first, median, third = statistics.quantiles(times_us, n=4)
    return Timing(
        case,
        pipeline,
        median_us=round(median, 2),
        quartile_1_us=round(first, 2),
        quartile_3_us=round(third, 2),
        min_us=round(min(times_us), 2),
        rounds=len(times_us),
    )


def environment() -> dict[str, Any]:
    """The hardware and the versions that a number belongs to."""
    return {
        "cpu": _cpu_model(),
        "machine": platform.machine(),
        "system": platform.system(),
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "pillow": PIL.__version__,
            "numpy": np.__version__,
        },
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def render(timings: list[Timing], planning: dict[str, float]) -> Table:
    """A row for each case and pipeline."""
    table = Table(title=f"CPU microseconds an image, {SIZE}x{SIZE}, batches of {BATCH}, one thread")
    for column in ("case", "pipeline", "median", "quartiles", "ratio"):
        table.add_column(column, justify="left" if column in {"case", "pipeline"} else "right", no_wrap=True)
    reference = 1.0
    for timing in timings:
        mine = timing.pipeline == "distill"
        reference = timing.median_us if mine else reference
        if mine:
            table.add_section()
            table.add_row(timing.case, "distill, plan", f"{planning[timing.case]:.2f}", "", "")
        spread = f"{timing.quartile_1_us:.1f} - {timing.quartile_3_us:.1f}"
        table.add_row("", timing.pipeline, f"{timing.median_us:.1f}", spread, f"{timing.median_us / reference:.1f}")
    return table


def main(arguments: list[str] | None = None) -> None:
    """Measures and prints a table, or one JSON document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.augment", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    parser.add_argument("--rounds", type=int, default=20, help="batches of each pipeline (default: 20)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    noise, timings, planning = Noise(), [], {}
    for case in CASES:
        print(f"measuring {case.name} ...", file=sys.stderr)
        planning[case.name] = round(planning_us(case), 3)
        timings += measure(case, noise, options.rounds)
    if options.json:
        shape = {"images": IMAGES, "image_size": SIZE, "batch_size": BATCH, "unit": "CPU microseconds an image"}
        rows = [asdict(timing) for timing in timings]
        print(json.dumps({"benchmark": "augment", **shape, **environment(), "planning_us": planning, "rows": rows}))
    else:
        Console().print(render(timings, planning))
        print(json.dumps(environment()), file=sys.stderr)


if __name__ == "__main__":
    main()
