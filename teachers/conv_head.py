"""A head of convolutions: what some published teachers have behind a ResNet, in the place of one linear layer."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["ConvHead"]


class ConvHead(nn.Module):
    """A head of convolutions for a backbone's last map: 3x3 to 32, 32, pool, 64, 64, pool, dense 512, dropout, dense.

    The pools round up, so that a 1x1 map stays 1x1.

    Shapes:
        input: ``(B, in_channels, S, S)`` with ``S`` as given; output: ``(B, num_classes)`` logits.
    """

    def __init__(self, in_channels: int, map_size: int, num_classes: int, *, dropout: float) -> None:
        super().__init__()

        def pair(i: int, o: int) -> list[nn.Module]:
            first, second = nn.Conv2d(i, o, 3, padding=1), nn.Conv2d(o, o, 3, padding=1)
            return [first, nn.ReLU(inplace=True), second, nn.ReLU(inplace=True), nn.MaxPool2d(2, ceil_mode=True)]

        cells = (-(-map_size // 4)) ** 2
        self.convs = nn.Sequential(*pair(in_channels, 32), *pair(32, 64))
        self.hidden = nn.Linear(64 * cells, 512)
        self.act = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(512, num_classes)

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.dropout(self.act(self.hidden(self.convs(x).flatten(1))))
        return x if pre_logits else self.fc(x)
