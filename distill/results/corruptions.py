"""How right a model is on corrupted images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["CORRUPTIONS", "CORRUPTION_NAMES", "SEVERITIES", "CorruptedTop1", "CorruptionResult"]

CORRUPTION_NAMES = {
    "gaussian_noise": "Gaussian noise",
    "defocus_blur": "defocus blur",
    "motion_blur": "motion blur",
    "brightness": "brightness",
    "contrast": "contrast",
    "jpeg": "JPEG",
}
"""What images are corrupted by, in the order of tables and figures, and in words."""

CORRUPTIONS = tuple(CORRUPTION_NAMES)

SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class CorruptedTop1:
    """Top-1 of one corruption at one severity, with Wilson's 95% interval."""

    corruption: str
    severity: int
    top1: float
    low: float
    high: float


@dataclass(frozen=True)
class CorruptionResult:
    """Top-1 of one model under every corruption and severity, on the same ``n`` images of a split.

    Attributes:
        clean_top1: On these images clean.
        mean_top1: Over all corruptions and severities, each weighed alike; ``mean_low`` to ``mean_high`` with 95%,
            Student's over images, each of which counts with the share of its corrupted versions that were recognised.
        cells: One for each corruption and severity, in order.
        images_key: A name for the corrupted images: results of equal keys were measured on the same ones.
    """

    n: int
    clean_top1: float
    mean_top1: float
    mean_low: float
    mean_high: float
    cells: tuple[CorruptedTop1, ...]
    images_key: str

    @property
    def retained(self) -> float | None:
        """``mean_top1`` as a share of ``clean_top1``; None where nothing was right to begin with."""
        return self.mean_top1 / self.clean_top1 if self.clean_top1 else None

    def curve(self, corruption: str) -> list[float]:
        """Top-1 at severity 0 (clean), 1, ... 5."""
        return [self.clean_top1, *(cell.top1 for cell in self.cells if cell.corruption == corruption)]

    def mean_of(self, corruption: str) -> float:
        """Mean top-1 over the severities of one corruption."""
        corrupted = self.curve(corruption)[1:]
        return sum(corrupted) / len(corrupted)

    def to_json(self) -> dict[str, Any]:
        """For a JSON document; ``retained`` and ``by_corruption`` are there to be read."""
        by_corruption = {name: self.mean_of(name) for name in CORRUPTIONS}
        return asdict(self) | {"retained": self.retained, "by_corruption": by_corruption}

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> CorruptionResult:
        """What :meth:`to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: It is damaged.
        """
        values = {name: tree[name] for name in cls.__dataclass_fields__}
        found = cls(**(values | {"cells": tuple(CorruptedTop1(**cell) for cell in tree["cells"])}))
        if [(cell.corruption, cell.severity) for cell in found.cells] != _GRID:
            raise ValueError("not every corruption at every severity")
        return found


_GRID = [(corruption, severity) for corruption in CORRUPTIONS for severity in SEVERITIES]
