"""How much faster a training step is in bf16 than in fp32 on this CPU, network by network.

``python -m benchmarks.precision [--recipes R,...] [--out docs/results] [--threads 1] [--rounds 5]``

It is what the rule of ``train.precision: auto`` stands on (``distill.pipeline.precision``). Each network takes the
steps of its recipe's batch (at most 64 images) in turns, one in fp32 and one in bf16, so that what else the machine
does falls on both; CPU seconds are counted, and the ratio is that of the medians.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

__all__ = ["main"]

_RECIPES = (
    "fast_cifar10", "r18_small", "resnet10t_cifar10", "r121_step", "resnet56_cifar10", "resnet20_cifar10", "r222_adam",
    "grouped_resnet_cifar100", "cnn_cifar10", "lenet_cifar10", "vit_tiny_cifar10", "lite0_cifar10",
    "quickstart_teacher",
)  # fmt: skip
_MAX_IMAGES = 64


def measure(name: str, rounds: int) -> dict[str, Any]:
    """One recipe's row: images per CPU-second in both precisions, and what the rule says."""
    import torch
    from torch.nn import functional as F

    from distill.devices import channels_last
    from distill.evaluation.cost import spec_cost
    from distill.models import build_model, meta_model, without_weights
    from distill.pipeline.precision import bf16_pays
    from distill.recipe import load_recipe

    recipe = load_recipe(name)
    classes = 100 if recipe.data.name == "cifar100" else 10
    module = channels_last(build_model(without_weights(recipe.model), num_classes=classes)).train()
    count, side = min(recipe.train.batch_size, _MAX_IMAGES), recipe.model.input_size
    images = torch.randn(count, 3, side, side).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, classes, (count,))
    spent: dict[str, list[float]] = {"fp32": [], "bf16": []}
    for turn in range(rounds + 1):
        for precision, times in spent.items():
            started = time.process_time()
            lower = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()
            with lower:
                loss = F.cross_entropy(module(images).float(), labels)
            loss.backward()
            module.zero_grad(set_to_none=True)
            if turn:  # the first one chooses kernels
                times.append(time.process_time() - started)
    fp32, bf16 = (count / median(spent[precision]) for precision in ("fp32", "bf16"))
    return {
        "recipe": name,
        "batch": count,
        "gmacs": spec_cost(recipe.model, classes).figures.gmacs,
        "fp32_images_per_cpu_s": fp32,
        "bf16_images_per_cpu_s": bf16,
        "ratio": bf16 / fp32,
        "rule": "bf16" if bf16_pays(meta_model(recipe.model, classes), side)[0] else "fp32",
    }


def main(arguments: list[str] | None = None) -> None:
    """Prints a row for each network; with ``--out`` writes precision.json."""
    import torch

    from distill.devices import describe_device, library_versions

    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__.splitlines()[0])
    parser.add_argument("--recipes", default=",".join(_RECIPES), help="by name, comma-separated")
    parser.add_argument("--out", type=Path, help="folder for precision.json (default: none is written)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5, help="steps in each precision (default: 5)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    rows = []
    for name in options.recipes.split(","):
        rows.append(row := measure(name, options.rounds))
        print(
            f"{name:26} fp32 {row['fp32_images_per_cpu_s']:8.1f}  bf16 {row['bf16_images_per_cpu_s']:8.1f} images/CPU-s"
            f"  ratio {row['ratio']:.2f}  rule {row['rule']}",
            flush=True,
        )
    if options.out is not None:
        about = {
            "device": describe_device(torch.device("cpu")),
            "capability": torch.backends.cpu.get_cpu_capability(),
            "threads": options.threads,
            "rounds": options.rounds,
            "versions": library_versions(),
        }
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "precision.json").write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
