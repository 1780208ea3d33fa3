"""A network of your own, taught by a teacher: ``python docs/own_network.py [EPOCHS]``; about a minute on a CPU.

scikit-learn's digits need no download. The run folders, the table and the exported file are as from the command line.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn

from distill import Options, compare, export, finetune_teacher, load_recipe, train_student


class Depthwise(nn.Module):
    """Two depthwise convolutions between pointwise ones."""

    def __init__(self, num_classes: int, width: int = 16) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
            nn.Conv2d(width, 2 * width, 1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
        )
        self.fc = nn.Linear(2 * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, num_classes)`` of normalised images ``(B, 3, S, S)``."""
        return self.fc(self.body(images).mean((2, 3)))


def main() -> None:
    """Train a teacher and the student, compare them, export the student."""
    epochs = [f"train.epochs={sys.argv[1]}"] if len(sys.argv) > 1 else []
    options = Options()
    teacher = finetune_teacher(load_recipe("quickstart_teacher", epochs), options=options)
    recipe = load_recipe("quickstart_student", [*epochs, "name=depthwise"])
    student = train_student(recipe, teacher=teacher, network=Depthwise, options=options)
    print(compare([teacher, student]))
    print(export(student, overwrite=True).file)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
