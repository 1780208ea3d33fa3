"""Layers that bring a student's features to the shape of its teacher's; trained with it, never shipped."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from distill.errors import RecipeError

__all__ = ["connector", "halved_backwards", "projection"]


def projection(ours: tuple[int, ...], theirs: tuple[int, ...], *, kind: str) -> nn.Module:
    """One linear map of channels: a 1x1 convolution for maps, a linear layer for vectors and tokens.

    Args:
        ours: Shape of the student's features without the batch; maps are ``(C, H, W)``, vectors ``(D,)``.
        theirs: Of the teacher's. Heights and widths may differ.
        kind: The objective's, for the message.

    Raises:
        RecipeError: One is a map and the other is not, or tokens differ in number.
    """
    if len(ours) != len(theirs) or (len(ours) == 2 and ours[0] != theirs[0]):
        raise RecipeError(
            f"objective {kind}: features of shape {ours} cannot be compared with {theirs}",
            hint="name two maps or two vectors: objective.features, objective.teacher_features",
        )
    if len(ours) == 3:
        return nn.Conv2d(ours[0], theirs[0], 1)
    return nn.Linear(ours[-1], theirs[-1])


def connector(ours: tuple[int, ...], theirs: tuple[int, ...]) -> nn.Module:
    """A 1x1 convolution and batch norm, from the student's channels to the teacher's; both shapes are of maps."""
    convolution = nn.Conv2d(ours[0], theirs[0], 1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(theirs[0]))


def halved_backwards(losses: Sequence[Tensor]) -> Tensor:
    """The sum over stages, the last as it is and each one half as much as the next.

    >>> halved_backwards([torch.tensor(8.0), torch.tensor(4.0), torch.tensor(1.0)]).item()
    5.0
    """
    return torch.stack([loss / 2 ** (len(losses) - 1 - place) for place, loss in enumerate(losses)]).sum()
