"""What every contestant is given: the same networks with the same weights, the same images, the same loss."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchvision import datasets, transforms

from distill.models import build_model
from distill.recipe import Recipe, load_recipe

__all__ = ["CE_WEIGHT", "CLASSES", "MEAN", "MOMENTUM", "PAIRS", "STD", "TEMPERATURE", "WEIGHT_DECAY", "Setting"]

CLASSES = 10
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CE_WEIGHT, TEMPERATURE = 0.1, 4.0
LR, MOMENTUM, WEIGHT_DECAY = 0.02, 0.9, 5e-4
_CALIBRATION_IMAGES = 32

PAIRS = {
    "resnet56-resnet20": ("resnet56_cifar10", "resnet20_cifar10"),
    "resnet152-r18_small": ("resnet152_cifar10", "r18_small"),
}


@dataclass(frozen=True)
class Setting:
    """One comparison; small enough to send to a process.

    Attributes:
        images: Training images, the images of one round: a round is an epoch.
        workers: Processes of each peer's DataLoader; 0 decodes in the process that trains.
        data: A folder with ``cifar-10-batches-py``, or None: synthetic images.
        peers_channels_last: Give the peers' networks and batches the layout that distill's ``auto`` picks.
        peers_bf16: Run the peers' networks in bf16, as a careful user would where the CPU has it, and let distill's
            ``auto`` choose; without it all train in fp32.
        runtime: What distill's teacher is asked through; None: on a CPU, ONNX Runtime where it is asked in fp32.
        asked_in: What distill's teacher answers in on a CPU; the peers' answers in bf16 with ``peers_bf16``.
    """

    pair: str = "resnet56-resnet20"
    images: int = 1280
    batch: int = 128
    rounds: int = 5
    workers: int = 2
    data: str | None = None
    device: str = "cpu"
    peers_channels_last: bool = False
    peers_bf16: bool = False
    runtime: Literal["torch", "onnxruntime"] | None = None
    asked_in: Literal["fp32", "bf16"] = "fp32"

    @property
    def asked_through(self) -> Literal["torch", "onnxruntime"]:
        """``runtime``, or what it comes to on this device."""
        return self.runtime or ("onnxruntime" if self.device == "cpu" and self.asked_in == "fp32" else "torch")

    @property
    def recipe(self) -> Recipe:
        """The student's recipe, as distill trains it; the loss and the optimiser are those of every contestant."""
        _, student = PAIRS[self.pair]
        base = load_recipe(
            "r18_small",
            [
                "augment.crop_fill=zero",
                "augment.views=1",
                "teacher.logits_dtype=float16",
                f"teacher.runtime={self.asked_through}",
                *([f"teacher.precision={self.asked_in}"] if self.device == "cpu" else []),
                *([] if self.peers_bf16 or self.device != "cpu" else ["train.precision=fp32"]),
                f"objective.ce_weight={CE_WEIGHT}",
                f"objective.kd_weight={1 - CE_WEIGHT}",
                f"objective.temperature={TEMPERATURE}",
                f"optim={{name: sgd, lr: {LR}, momentum: {MOMENTUM}, nesterov: true, weight_decay: {WEIGHT_DECAY}}}",
                "schedule={kind: constant}",
                f"train.epochs={self.rounds + 1}",
                f"train.batch_size={self.batch}",
            ],
        )
        return base.model_copy(update={"model": load_recipe(student).model})

    @property
    def teacher_recipe(self) -> Recipe:
        """The teacher's recipe, without downloaded weights: what it knows does not change what it costs."""
        recipe = load_recipe(PAIRS[self.pair][0])
        weightless = recipe.model.source == "timm"
        model = recipe.model.model_copy(update={"weights": "none"}) if weightless else recipe.model
        return recipe.model_copy(update={"model": model})

    def build_student(self) -> nn.Module:
        """The student, in the same initial state for everyone."""
        return build_model(self.recipe.model, num_classes=CLASSES, seed=1)

    def build_teacher(self) -> nn.Module:
        """The teacher, frozen and random, with batch-norm statistics of the images: its logits are of size 1."""
        teacher = build_model(self.teacher_recipe.model, num_classes=CLASSES, seed=0)
        norms = [module for module in teacher.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0
        planes = torch.from_numpy(self.pixels[:_CALIBRATION_IMAGES]).permute(0, 3, 1, 2)
        with torch.no_grad():
            logits = teacher.train()(normalised(planes))
            head = [module for module in teacher.modules() if isinstance(module, nn.Linear)][-1]
            head.weight.div_(logits.std())
        for norm in norms:
            norm.momentum = 0.1
        return teacher.eval().requires_grad_(False)

    @cached_property
    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Pixels uint8 ``(N, 32, 32, 3)`` and labels int64 ``(N,)``."""
        return _cifar(Path(self.data), self.images) if self.data else _patterns(self.images)

    @property
    def pixels(self) -> np.ndarray:
        """Uint8 ``(N, 32, 32, 3)``, as torchvision's CIFAR10 keeps them."""
        return self.arrays[0]

    @property
    def labels(self) -> np.ndarray:
        """Int64 ``(N,)``."""
        return self.arrays[1]


class PilImages(Dataset[tuple[Tensor, int]]):
    """Images in memory, made a PIL image when they are fetched, as ``torchvision.datasets.CIFAR10`` does."""

    def __init__(self, setting: Setting) -> None:
        self.data, self.targets = setting.pixels, setting.labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.data[index])), self.targets[index]


def normalised(planes: Tensor) -> Tensor:
    """Uint8 ``(B, 3, 32, 32)`` as the networks get them."""
    return transforms.functional.normalize(planes.float() / 255, MEAN, STD)


def reference_loss(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> float:
    """The loss that every contestant should minimise, in float64 from its definition."""
    student, teacher = student_logits.double(), teacher_logits.double()
    p, q = (F.softmax(logits / TEMPERATURE, 1) for logits in (teacher, student))
    divergence = (p * (p.log() - q.log())).sum(1).mean()
    chosen = F.softmax(student, 1)[torch.arange(len(labels)), labels].log()
    return (-CE_WEIGHT * chosen.mean() + (1 - CE_WEIGHT) * TEMPERATURE**2 * divergence).item()


def _cifar(root: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    found = datasets.CIFAR10(str(root), train=True, download=False)
    return np.ascontiguousarray(found.data[:count]), np.array(found.targets[:count], dtype=np.int64)


def _patterns(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise around a colour of the class: something to learn, and nothing that compresses or copies faster."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, CLASSES, count)
    colours = generator.integers(64, 192, (CLASSES, 1, 1, 3))
    pixels = colours[labels] + generator.integers(-64, 64, (count, 32, 32, 3))
    return pixels.astype(np.uint8), labels
