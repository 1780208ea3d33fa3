"""The frame that the networks here share: stem, stages, pooling, dropout, classifier."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["Staged"]


class Staged(nn.Module):
    """A classifier in stages; builders make the parts.

    Shapes:
        input: ``(B, C, S, S)``; output: ``(B, num_classes)`` logits.
    """

    def __init__(self, *, stem: nn.Module, stages: nn.Sequential, pool: nn.Module, dropout: float, head: nn.Linear):
        super().__init__()
        self.stem = stem
        self.stages = stages
        self.pool = pool
        self.dropout = nn.Dropout(dropout)
        self.head = head

    def get_classifier(self) -> nn.Module:
        """The last layer, under timm's name for it."""
        return self.head

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Depth groups as timm states them: the stem, then each stage (or each block)."""
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)" if coarse else r"^stages\.(\d+)\.(\d+)"}

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stages(self.stem(x)))
        return self.head(self.dropout(x.flatten(1)))
