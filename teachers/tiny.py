"""A random teacher of a few thousand parameters, for tests and for trying things out in seconds."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["TinyTeacher", "tiny"]


class TinyTeacher(nn.Module):
    """Two strided 3x3 convolutions with batch norm. See :func:`tiny`."""

    def __init__(self, *, in_channels: int, width: int, norm: bool, dropout: float, num_classes: int) -> None:
        super().__init__()

        def unit(i: int, o: int) -> nn.Sequential:
            conv = nn.Conv2d(i, o, 3, stride=2, padding=1, bias=not norm)
            return nn.Sequential(conv, nn.BatchNorm2d(o) if norm else nn.Identity(), nn.ReLU(inplace=True))

        self.stem = unit(in_channels, width)
        self.stages = nn.Sequential(unit(width, 2 * width))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * width, num_classes)

    def get_classifier(self) -> nn.Module:
        """The last layer, under timm's name for it."""
        return self.head

    def group_matcher(self, coarse: bool = False) -> dict:
        """Depth groups as timm states them: the stem, then each stage."""
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)" if coarse else r"^stages\.(\d+)\.(\d+)"}

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stages(self.stem(x)))
        return self.head(self.dropout(x.flatten(1)))


def tiny(
    *,
    num_classes: int,
    in_channels: int = 3,
    input_size: int = 32,
    width: int = 8,
    norm: bool = True,
    dropout: float = 0.0,
) -> nn.Module:
    """Build it. ``norm=False`` leaves out batch norm, so that an image's logits do not depend on the batch.

    Shapes, at any ``S``:
        input: ``(B, in_channels, S, S)``; output: ``(B, num_classes)`` logits.
    """
    return TinyTeacher(in_channels=in_channels, width=width, norm=norm, dropout=dropout, num_classes=num_classes)
