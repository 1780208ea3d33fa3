"""Operations and bytes of a training step, counted, and the times below which no version of it can run.

``python -m benchmarks.headline.counts [--tflops 790] [--tb-per-s 4.3] [--images 50000]``
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch

from distill.evaluation.cost import spec_cost
from distill.recipe import Recipe, load_recipe

__all__ = ["Ceilings", "Floor", "count_floor", "main"]

# Bytes in bf16 (2 each) for each element that a convolution writes, every tensor read once and written once by each
# kernel that cannot be fused with its neighbour, batch norm in training mode:
#   forward   convolution reads its input and writes (4), statistics read (2), normalise + ReLU read and write (4)
#   backward  batch norm's sums read gradient and input (4), its gradient reads both and writes (6), the convolution's
#             gradient by input reads and writes (4), by weights reads both (4)
_FORWARD_BYTES, _BACKWARD_BYTES = 10, 18
# For each parameter a step: read float32, write and read bf16 (8), write the gradient (4), and the optimiser reads
# weight, gradient and momentum and writes weight and momentum (20).
_PARAMETER_BYTES = 32


@dataclass(frozen=True)
class Ceilings:
    """What a device can do at best, measured: bf16 matrix products in FLOP/s, copies in bytes/s (read and written)."""

    flops: float = 790e12
    bytes_per_s: float = 4.3e12


@dataclass(frozen=True)
class Floor:
    """One training step of one network.

    Attributes:
        flop: Of forward and backward: 6 for each multiply-accumulate.
        bytes: Through the device's memory, at least.
        seconds: The larger of both terms where they overlap perfectly, their sum where not at all.
    """

    name: str
    batch: int
    macs: int
    elements: int
    flop: float
    bytes: float
    flop_s: float
    bytes_s: float

    @property
    def seconds(self) -> tuple[float, float]:
        return max(self.flop_s, self.bytes_s), self.flop_s + self.bytes_s


def count_floor(recipe: Recipe, batch: int, ceilings: Ceilings, *, num_classes: int = 10) -> Floor:
    """Count a step of ``batch`` images."""
    cost = spec_cost(recipe.model, num_classes)
    elements = sum(torch.Size(layer.output_shape).numel() for layer in cost.layers if layer.kind == "Conv2d")
    flop = 6.0 * cost.macs * batch
    moved = (_FORWARD_BYTES + _BACKWARD_BYTES) * elements * batch + _PARAMETER_BYTES * cost.params
    return Floor(
        name=recipe.name,
        batch=batch,
        macs=cost.macs,
        elements=elements,
        flop=flop,
        bytes=moved,
        flop_s=flop / ceilings.flops,
        bytes_s=moved / ceilings.bytes_per_s,
    )


def main() -> None:
    """Print the counts for the headline's networks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tflops", type=float, default=790.0)
    parser.add_argument("--tb-per-s", type=float, default=4.3)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--batch", type=int, default=500)
    args = parser.parse_args()
    ceilings = Ceilings(args.tflops * 1e12, args.tb_per_s * 1e12)
    print("network                    GMACs  M elements  TFLOP/step  GB/step  ms FLOP  ms bytes  s/epoch (max .. sum)")
    for name in ("resnet152_cifar10_scratch", "r453", "r18_small"):
        floor = count_floor(load_recipe(name), args.batch, ceilings)
        low, high = (seconds * args.images / args.batch for seconds in floor.seconds)
        print(
            f"{name:26s} {floor.macs / 1e9:5.3f} {floor.elements / 1e6:11.3f} {floor.flop / 1e12:11.2f}"
            f" {floor.bytes / 1e9:8.1f} {floor.flop_s * 1e3:8.2f} {floor.bytes_s * 1e3:9.2f}  {low:.2f} .. {high:.2f}"
        )


if __name__ == "__main__":
    main()
