"""A student of about a thousand parameters, for tests and for trying things out in seconds."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["TinyStudent", "tiny"]


class TinyStudent(nn.Module):
    """A strided stem and one depthwise-separable convolution. See :func:`tiny`."""

    def __init__(self, *, in_channels: int, width: int, norm: bool, dropout: float, num_classes: int) -> None:
        super().__init__()

        def normed(channels: int) -> list[nn.Module]:
            return [nn.BatchNorm2d(channels) if norm else nn.Identity(), nn.ReLU(inplace=True)]

        self.stem = nn.Sequential(nn.Conv2d(in_channels, width, 3, stride=2, padding=1, bias=not norm), *normed(width))
        self.stages = nn.Sequential(
            nn.Sequential(
                nn.Conv2d(width, width, 3, stride=2, padding=1, groups=width, bias=False),
                nn.Conv2d(width, 2 * width, 1, bias=not norm),
                *normed(2 * width),
            )
        )
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
    return TinyStudent(in_channels=in_channels, width=width, norm=norm, dropout=dropout, num_classes=num_classes)
