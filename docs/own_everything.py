"""A network, images and a loss of your own: ``python docs/own_everything.py [EPOCHS]``; seconds on a CPU.

Nothing is downloaded. The runs, the table and the exported file are as from the command line.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill import Options, compare, export, finetune_teacher, load_recipe, train_student

SHAPES = ("disc", "square", "stripes")


def shapes(count: int = 600, side: int = 24) -> dict[str, Any]:
    """Discs, squares and stripes in noise: what ``data=`` takes, and what a recipe's ``data.code`` may name."""
    return {"train": _drawn(count, side, seed=0), "test": _drawn(count // 3, side, seed=1), "classes": SHAPES}


def _drawn(count: int, side: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images ``(N, S, S, 3)`` and labels ``(N,)``."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, len(SHAPES), count)
    images = draw.integers(0, 120, (count, side, side, 3), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[_mask(label, side, draw)] += np.uint8(100)
    return images, labels


def _mask(label: int, side: int, draw: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[:side, :side] - draw.integers(side // 3, side - side // 3, (2, 1, 1))
    if label == 2:
        return (x + y) % 6 < 3
    return (np.hypot(x, y) if label == 0 else np.maximum(abs(x), abs(y))) < side // 4


class Small(nn.Module):
    """Three convolutions."""

    def __init__(self, num_classes: int, widths: Sequence[int] = (8, 16, 32)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for ours, theirs in zip((3, *widths), widths, strict=False):
            layers += [nn.Conv2d(ours, theirs, 3, stride=2, padding=1), nn.BatchNorm2d(theirs), nn.ReLU()]
        self.body, self.fc = nn.Sequential(*layers), nn.Linear(widths[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, num_classes)`` of normalised images ``(B, 3, S, S)``."""
        return self.fc(self.body(images).mean((2, 3)))


def confident(student: Tensor, teacher: Tensor, temperature: float = 2.0) -> Tensor:
    """A loss for each image ``(B,)``: what the teacher is sure of counts more."""
    theirs = F.softmax(teacher / temperature, dim=1)
    divergence = F.kl_div(F.log_softmax(student / temperature, dim=1), theirs, reduction="none").sum(1)
    return theirs.amax(1) * divergence * temperature**2


def main() -> None:
    """Train a teacher and the student on the same images, compare them, export the student."""
    epochs = [f"train.epochs={sys.argv[1]}"] if len(sys.argv) > 1 else []
    options, images = Options(), shapes()
    small = [*epochs, "data.image_size=24", "model.input_size=24"]
    teacher = finetune_teacher(load_recipe("quickstart_teacher", small), data=images, options=options)
    recipe = load_recipe("quickstart_student", [*small, "name=small_shapes"])
    student = train_student(recipe, teacher=teacher, network=Small, data=images, objective=confident, options=options)
    print(compare([teacher, student]))
    print(export(student, overwrite=True).file)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
