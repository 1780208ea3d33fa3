"""Plain convolutional networks without skips or batch norm: the small baselines everything is compared with."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

__all__ = ["PlainCNN", "cnn", "lenet"]


class PlainCNN(nn.Module):
    """Convolutions without padding, each with ReLU, then dense layers. See :func:`cnn` and :func:`lenet`."""

    def __init__(self, *, features: nn.Sequential, hidden: nn.Sequential, dropout: float, head: nn.Linear) -> None:
        super().__init__()
        self.features = features
        self.hidden = hidden
        self.dropout = nn.Dropout(dropout)
        self.head = head
        starts = [at for at, layer in enumerate(features) if isinstance(layer, nn.Conv2d)]
        ends = [*(at - 1 for at in starts[1:]), len(features) - 1]
        self.feature_info = [{"module": f"features.{end}"} for end in ends]  # a stage a convolution, as timm states it

    def get_classifier(self) -> nn.Module:
        """The last layer, under timm's name for it."""
        return self.head

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Depth groups as timm states them: each convolution, then the hidden layers."""
        return {"features": r"^features\.(\d+)", "hidden": r"^hidden" if coarse else r"^hidden\.(\d+)"}

    def forward(self, x: Tensor) -> Tensor:
        x = self.hidden(self.features(x).flatten(1))
        return self.head(self.dropout(x))


def _plain(
    *, num_classes: int, in_channels: int, input_size: int, channels: Sequence[int], kernel: int,
    pool_last: bool, hidden: Sequence[int], dropout: float,
) -> PlainCNN:  # fmt: skip
    features, width, size = nn.Sequential(), in_channels, input_size
    for i, out in enumerate(channels):
        features.extend([nn.Conv2d(width, out, kernel), nn.ReLU(inplace=True)])
        width, size = out, size - kernel + 1
        if pool_last or i + 1 < len(channels):
            features.append(nn.MaxPool2d(2))
            size //= 2
        if size < 1:
            raise ValueError(f"input_size {input_size} is too small: nothing is left after convolution {i + 1}")
    dense, features_in = nn.Sequential(), width * size**2
    for out in hidden:
        dense.extend([nn.Linear(features_in, out), nn.ReLU(inplace=True)])
        features_in = out
    return PlainCNN(features=features, hidden=dense, dropout=dropout, head=nn.Linear(features_in, num_classes))


def cnn(
    *,
    num_classes: int,
    in_channels: int = 3,
    input_size: int,
    channels: Sequence[int],
    kernel: int,
    hidden: Sequence[int],
    dropout: float,
) -> nn.Module:
    """Build the tutorial's CNN: convolutions with 2x2 max-pools between them, dense 64: 122,570 parameters.

    Shapes:
        input: ``(B, in_channels, input_size, input_size)``; output: ``(B, num_classes)`` logits.

    Raises:
        ValueError: The image is too small for that many convolutions.
    """
    return _plain(
        num_classes=num_classes, in_channels=in_channels, input_size=input_size, channels=channels, kernel=kernel,
        pool_last=False, hidden=hidden, dropout=dropout,
    )  # fmt: skip


def lenet(*, num_classes: int, in_channels: int = 3, input_size: int, dropout: float) -> nn.Module:
    """Build LeNet-5 with ReLU and max-pooling: 5x5 convolutions to 6 and 16, dense 120 and 84: 62,006 parameters.

    Shapes:
        input: ``(B, in_channels, input_size, input_size)``; output: ``(B, num_classes)`` logits.

    Raises:
        ValueError: The image is smaller than 16 pixels.
    """
    return _plain(
        num_classes=num_classes, in_channels=in_channels, input_size=input_size, channels=(6, 16), kernel=5,
        pool_last=True, hidden=(120, 84), dropout=dropout,
    )  # fmt: skip
