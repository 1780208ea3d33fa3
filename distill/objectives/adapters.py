"""Layers that bring a student's features to the shape of its teacher's; trained with it, never shipped."""

from __future__ import annotations

from torch import nn

from distill.errors import RecipeError

__all__ = ["projection"]


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
