"""Networks that may learn: ResNets, small baselines, one that learns fast. ``STUDENTS`` maps a name to its builder."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from students.cnn import cnn, lenet
from students.fast import fast
from students.grouped_resnet import grouped_resnet
from students.resnet import resnet
from students.tiny import tiny
from students.vgg import vgg

__all__ = ["STUDENTS"]

STUDENTS: dict[str, Callable[..., nn.Module]] = {
    "cnn": cnn,
    "fast": fast,
    "grouped_resnet": grouped_resnet,
    "lenet": lenet,
    "resnet": resnet,
    "tiny": tiny,
    "vgg": vgg,
}
