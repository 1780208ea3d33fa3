"""A student that ends in its teacher's classifier: a projector behind its last stage, and that classifier, frozen."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.errors import RecipeError
from distill.models.stage_names import classifier_of, stage_modules

__all__ = ["FrozenLinear", "Projector", "copy_classifier", "reuse_head"]

_NARROWER = 2  # the projector's middle, as a share of the teacher's width: the paper's reduction


class FrozenLinear(nn.Linear):
    """A linear layer whose weights are parameters, and are counted as such, but learn nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.detach(), None if self.bias is None else self.bias.detach())


class Projector(nn.Sequential):
    """Convolutions of 1x1, 3x3 and 1x1, each with batch norm and ReLU, from a student's width to its teacher's."""

    def __init__(self, own: int, width: int) -> None:
        middle = max(width // _NARROWER, 1)
        super().__init__(*_unit(own, middle, 1), *_unit(middle, middle, 3), *_unit(middle, width, 1))

    @property
    def last(self) -> nn.Module:
        """The convolution that is as wide as the teacher's classifier wants."""
        return self[-3]


def reuse_head(module: nn.Module, width: int, *, num_classes: int) -> None:
    """Fit a network, in place, with SimKD's projector and a classifier of ``width`` features (arXiv:2203.14001).

    Raises:
        ValueError: It has no stages, or no linear classifier behind them.
    """
    places, head = list(stage_modules(module).values()), classifier_of(module)
    if not places or type(head) is not nn.Linear:
        raise ValueError("reuse: it has no last stage with a linear classifier behind it")
    last = module.get_submodule(places[-1])
    module.set_submodule(places[-1], nn.Sequential(last, Projector(head.in_features, width)))
    name = next(name for name, each in module.named_modules() if each is head)
    module.set_submodule(name, FrozenLinear(width, num_classes))


def _unit(i: int, o: int, kernel: int) -> list[nn.Module]:
    return [nn.Conv2d(i, o, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(o), nn.ReLU(inplace=True)]


def _does_more(layer: nn.Linear) -> bool:
    """A subclass may do more than its weights say."""
    return type(layer) not in (nn.Linear, FrozenLinear)


@torch.no_grad()
def copy_classifier(student: nn.Module, teacher: nn.Module) -> None:
    """Give the student its teacher's classifier.

    Raises:
        RecipeError: The teacher's is no linear layer of that shape.
    """
    ours, theirs = classifier_of(student), classifier_of(teacher)
    assert isinstance(ours, FrozenLinear)
    if not isinstance(theirs, nn.Linear) or _does_more(theirs) or theirs.weight.shape != ours.weight.shape:
        raise RecipeError(
            "objective simkd reuses a linear classifier, and its teacher's is none of the student's shape",
            hint="learn from its features otherwise: objective fitnet, at, reviewkd",
        )
    ours.weight.copy_(theirs.weight)
    if theirs.bias is None:
        ours.bias.zero_()
    else:
        ours.bias.copy_(theirs.bias)
