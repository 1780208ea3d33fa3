"""Contrastive representation distillation: an image's features tell it from others, by its teacher's memory of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.data.batches import Batch
from distill.errors import RecipeError
from distill.objectives.objective import NetworkOutput, Term, TermContext
from distill.objectives.pairs import StagePairs, no_autocast
from distill.recipe.objectives import CRDTerm

__all__ = ["CRD", "contrast_loss"]

_EPS = 1e-7
_LARGE_MEMORY = 8  # times what is compared with one image: from there on the compared ones alone are read


class CRD(Term):
    """``crd_weight * (the student among the teacher's memories + the teacher among the student's)``.

    Both networks' features are embedded by a linear layer each and remembered by image; a batch is compared with
    itself and with ``negatives`` remembered images of other classes. Which ones is drawn from a seed and a count of
    draws that is saved with the memories, so that a run which goes on draws what one that never stopped does.

    Raises:
        RecipeError: Several devices: the memories would differ; one class: there are no others.
    """

    def __init__(self, spec: CRDTerm, context: TermContext) -> None:
        super().__init__()
        pairs = StagePairs(spec, context)
        if context.devices > 1:
            raise RecipeError(
                "objective crd remembers features in one process", hint="train on one device: leave out --devices"
            )
        if len(pairs.names) != 1:
            raise RecipeError(
                f"objective crd compares one stage, not {len(pairs.names)}", hint="name one: objective.features"
            )
        assert context.labels is not None, "an objective on features is told the labels"
        (ours, theirs), labels = pairs.shapes[0], context.labels
        self._pairs, self._spec, self._seed = pairs, spec, context.seed
        self.requires, self.weights = pairs.requires, {"crd": spec.crd_weight}
        self.embed_student = nn.Linear(_size(ours), spec.dimensions)
        self.embed_teacher = nn.Linear(_size(theirs), spec.dimensions)
        spread = (3.0 / spec.dimensions) ** 0.5
        for name in ("student", "teacher"):
            memory = torch.empty(len(labels), spec.dimensions).uniform_(-spread, spread)
            self.register_buffer(f"memory_{name}", memory)
            self.register_buffer(f"constant_{name}", torch.zeros(()))  # set by the first batch
        self._draws = 0
        self._others = _Others(labels)

    def losses(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        (ours, theirs), *_ = self._pairs.of(student, teacher)
        with no_autocast(ours):
            own = F.normalize(self.embed_student(ours.flatten(1)), dim=1)
            taught = F.normalize(self.embed_teacher(theirs.flatten(1)), dim=1)
            compared = torch.cat([batch.index[:, None], self._drawn(batch)], dim=1)
            loss = self._contrast(own, "teacher", compared) + self._contrast(taught, "student", compared)
            self._remember("student", own, batch.index)
            self._remember("teacher", taught, batch.index)
        return {"crd": loss}

    def get_extra_state(self) -> Tensor:
        """How often negatives were drawn: on the host, so that no step waits for the device."""
        return torch.tensor(self._draws)

    def set_extra_state(self, state: Tensor) -> None:
        """Go on drawing where that was."""
        self._draws = int(state)

    def _drawn(self, batch: Batch) -> Tensor:
        generator = torch.Generator().manual_seed((self._seed + self._draws) % 2**63)
        self._draws += 1
        index, device = torch.from_numpy(batch.host.index), batch.index.device
        drawn = self._others.draw(index, self._spec.negatives, generator)
        return drawn.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else drawn.to(device)

    def _contrast(self, features: Tensor, other: str, compared: Tensor) -> Tensor:
        """Of embeddings ``(B, E)`` among the other network's memories of ``(B, 1 + K)`` images, their own first."""
        memory: Tensor = getattr(self, f"memory_{other}")
        scores = _products(features, memory, compared)
        unnormalized = (scores / self._spec.temperature).exp()
        constant: Tensor = getattr(self, f"constant_{other}")
        with torch.no_grad():
            constant.copy_(torch.where(constant > 0, constant, unnormalized.mean() * len(memory)))
        return contrast_loss(unnormalized / constant, images=len(memory))

    @torch.no_grad()
    def _remember(self, name: str, features: Tensor, index: Tensor) -> None:
        memory: Tensor = getattr(self, f"memory_{name}")
        share = self._spec.momentum
        memory[index] = F.normalize(share * memory[index] + (1.0 - share) * features, dim=1)


def _products(features: Tensor, memory: Tensor, compared: Tensor) -> Tensor:
    """``(B, C)``: products of ``features`` ``(B, E)`` with the rows of ``memory`` ``(N, E)`` compared with each.

    With all rows at once, unless there are many more: to copy ``(B, C, E)`` memories costs ten times as much.
    """
    if len(memory) > _LARGE_MEMORY * compared.shape[1]:
        return torch.einsum("be,bke->bk", features, memory[compared])
    return (features @ memory.clone().T).gather(1, compared)  # remembering writes into it before the backward pass


def contrast_loss(scores: Tensor, *, images: int) -> Tensor:
    """Noise-contrastive estimation: which of the compared images is the image itself (Tian et al., arXiv:1910.10699).

    Shapes:
        scores: ``(B, 1 + K)`` above 0, each image's own first, over a constant that makes them probabilities.
        returns: ``()`` float32, mean over the batch.
    """
    noise = (scores.shape[1] - 1) / images
    own, others = scores[:, 0], scores[:, 1:]
    is_own = (own / (own + noise + _EPS)).log()
    is_other = (noise / (others + noise + _EPS)).log()
    return -(is_own.sum() + is_other.sum()) / len(scores)


class _Others:
    """Draws images of other classes, each as likely as any other."""

    def __init__(self, labels: Tensor) -> None:
        self._order = labels.argsort(stable=True)
        self._labels = labels
        counts = labels.bincount()
        self._counts, self._starts = counts, counts.cumsum(0) - counts
        if int(counts.max()) == len(labels):
            raise RecipeError("objective crd compares images of several classes, and there is one")

    def draw(self, index: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """``(B, count)`` images of other classes than those of ``index`` ``(B,)``, with replacement, on the host."""
        labels = self._labels[index]
        own, start = self._counts[labels][:, None], self._starts[labels][:, None]
        drawn = torch.rand((len(index), count), generator=generator, dtype=torch.float64)
        place = (drawn * (len(self._labels) - own)).long()
        place += (place >= start) * own  # the image's own class is jumped over
        return self._order[place]


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for each in shape:
        size *= each
    return size
