"""Networks that may learn: compact ResNets and small baselines. ``STUDENTS`` maps a name to its builder."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from students.cnn import cnn, lenet
from students.grouped_resnet import grouped_resnet
from students.resnet import resnet
from students.tiny import tiny

__all__ = ["STUDENTS"]

STUDENTS: dict[str, Callable[..., nn.Module]] = {
    "cnn": cnn,
    "grouped_resnet": grouped_resnet,
    "lenet": lenet,
    "resnet": resnet,
    "tiny": tiny,
}
