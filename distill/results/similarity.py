"""How alike two networks are, as ``distill similarity`` found it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Similarity"]


@dataclass(frozen=True)
class Similarity:
    """A network beside another, mostly its teacher, on the same images of a split.

    Attributes:
        run: Whose it is; ``other`` whom it is held against.
        n: Images of the split, which both answered.
        agreement: Share of them for which both prefer the same class.
        divergence: Mean KL(other ‖ run) of their classes, in nats, at temperature 1.
        correlation_difference: Mean absolute difference of how two classes' logits correlate over images.
        images: So many of the split, drawn alike for every pair of networks, were looked at inside.
        stages: Of the run, in order of depth; ``other_stages`` of the other.
        cka: Linear CKA of each stage (row) with each of the other's (column); null of a stage that knows no images
            apart.
        figure: The picture that was drawn.
    """

    run: str
    name: str
    other: str
    other_name: str
    split: str
    n: int
    agreement: float
    divergence: float
    correlation_difference: float
    images: int
    stages: tuple[str, ...]
    other_stages: tuple[str, ...]
    cka: tuple[tuple[float | None, ...], ...]
    notes: tuple[str, ...] = ()
    figure: str | None = None
