"""The peers, each through its public interface, in the loop its documentation shows."""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler

from benchmarks.peers.setting import CE_WEIGHT, LR, MEAN, MOMENTUM, STD, TEMPERATURE, WEIGHT_DECAY, PilImages, Setting

__all__ = ["FRAMEWORKS", "Framework", "ModelOpt", "TimmTask", "Torchdistill"]


class Framework(Protocol):
    """A way to take a distillation step.

    Attributes:
        package: On the package index.
        loader: Yields ``(images, labels, ...)``.
        differences: Between its loss, or its step, and everybody's.
    """

    package: str
    loader: Iterable[Any]
    differences: str

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """The loss of one batch, on its way to the student's gradients."""
        ...

    def update(self, loss: Tensor) -> None:
        """Backward, and a step of the optimiser."""
        ...

    def start_epoch(self) -> None:
        """What comes before an epoch."""
        ...


def loader_options(setting: Setting) -> dict[str, Any]:
    """A DataLoader's usual options; its workers last, so that what they cost falls into the epoch they work for."""
    persists = setting.workers > 0 and sys.platform == "linux"
    return {"batch_size": setting.batch, "num_workers": setting.workers, "persistent_workers": persists}


def sgd(student: nn.Module) -> torch.optim.Optimizer:
    """The optimiser as torch makes it."""
    parameters = [parameter for parameter in student.parameters() if parameter.requires_grad]
    return torch.optim.SGD(parameters, lr=LR, momentum=MOMENTUM, nesterov=True, weight_decay=WEIGHT_DECAY)


class TimmTask:
    """``timm.task.LogitDistillationTask``."""

    package = "timm"
    differences = "none"

    def __init__(self, setting: Setting, student: nn.Module, teacher: nn.Module) -> None:
        from timm.task import LogitDistillationTask
        from timm.task.distillation import DistillationTeacher

        for network in (student, teacher):  # where timm looks the normalisation up
            vars(network).update(pretrained_cfg={"mean": MEAN, "std": STD})
        device = torch.device(setting.device)
        self.task = LogitDistillationTask(
            student,
            DistillationTeacher(teacher, device=device),
            criterion=nn.CrossEntropyLoss(),
            task_loss_weight=CE_WEIGHT,
            temperature=TEMPERATURE,
            device=device,
            verbose=False,
        )
        self.loader: Iterable[Any] = DataLoader(PilImages(setting), shuffle=True, **loader_options(setting))
        self.optimizer = sgd(student)

    def start_epoch(self) -> None:
        self.task.train()

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.task(images, labels)["loss"]

    def update(self, loss: Tensor) -> None:
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


class ModelOpt:
    """``modelopt.torch.distill``: the student becomes a model that holds its teacher."""

    package = "nvidia-modelopt"
    differences = "reduction='batchmean' is asked for: its default divides the divergence by the classes too"

    def __init__(self, setting: Setting, student: nn.Module, teacher: nn.Module) -> None:
        import modelopt.torch.distill as mtd

        config = {
            "teacher_model": teacher,
            "criterion": mtd.LogitsDistillationLoss(temperature=TEMPERATURE, reduction="batchmean"),
            "loss_balancer": mtd.StaticLossBalancer(kd_loss_weight=1 - CE_WEIGHT),
        }
        self.model = mtd.convert(student, mode=[("kd_loss", config)])
        self.cross_entropy = nn.CrossEntropyLoss()
        self.loader: Iterable[Any] = DataLoader(PilImages(setting), shuffle=True, **loader_options(setting))
        self.optimizer = sgd(self.model)

    def start_epoch(self) -> None:
        self.model.train()

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        output = self.model(images)
        return self.model.compute_kd_loss(student_loss=self.cross_entropy(output, labels))

    def update(self, loss: Tensor) -> None:
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


class Torchdistill:
    """torchdistill's ``DistillationBox`` with its ``KDLoss``, as its CIFAR example trains."""

    package = "torchdistill"
    differences = "none"

    def __init__(self, setting: Setting, student: nn.Module, teacher: nn.Module) -> None:
        from torchdistill.core.distillation import get_distillation_box

        logging.getLogger("torchdistill").setLevel(logging.WARNING)
        device = torch.device(setting.device)
        data = {"train": PilImages(setting)}
        self.box = get_distillation_box(
            teacher, student, data, _torchdistill_config(setting), device, None, distributed=False, lr_factor=1
        )
        self.loader = self.box.train_data_loader

    def start_epoch(self) -> None:
        self.box.pre_epoch_process(epoch=0)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.box.forward_process(images, labels, {})

    def update(self, loss: Tensor) -> None:
        self.box.post_forward_process(loss)


def _torchdistill_config(setting: Setting) -> dict[str, Any]:
    kd = {
        "key": "KDLoss",
        "kwargs": {
            "student_module_path": ".",
            "student_module_io": "output",
            "teacher_module_path": ".",
            "teacher_module_io": "output",
            "temperature": TEMPERATURE,
            "alpha": CE_WEIGHT,
            "reduction": "batchmean",
        },
    }
    return {
        "num_epochs": setting.rounds,
        "train_data_loader": {
            "dataset_id": "train",
            "sampler": {"class_or_func": RandomSampler},
            "kwargs": loader_options(setting),
        },
        "teacher": {"forward_proc": "forward_batch_only", "requires_grad": False},
        "student": {"forward_proc": "forward_batch_only", "requires_grad": True},
        "optimizer": {
            "key": "SGD",
            "kwargs": {"lr": LR, "momentum": MOMENTUM, "nesterov": True, "weight_decay": WEIGHT_DECAY},
        },
        "criterion": {
            "key": "WeightedSumLoss",
            "func2extract_model_loss": "extract_model_loss_dict",
            "kwargs": {"sub_terms": {"kd": {"criterion": kd, "weight": 1.0}}},
        },
    }


FRAMEWORKS: dict[str, Callable[[Setting, nn.Module, nn.Module], Framework]] = {
    "torchdistill": Torchdistill,
    "timm.task": TimmTask,
    "modelopt": ModelOpt,
}


def version(package: str) -> str:
    """Its installed version."""
    return importlib.metadata.version(package)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Packages say a lot while they are imported, on both streams."""
    with warnings.catch_warnings(), open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        warnings.simplefilter("ignore")
        yield
