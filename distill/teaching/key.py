"""What a bank's answers depend on. A student may read a bank only where all of it agrees."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from distill.recipe.schema import AugmentSpec

__all__ = ["BankKey", "augmentation_key"]

_TEACHERS_OWN = ("teacher", "normalize", "precision")  # a student far from the teacher cannot know these


@dataclass(frozen=True)
class BankKey:
    """The parts of a bank's identity; see :meth:`digest`.

    Attributes:
        teacher: sha256 of the teacher's weights and buffers.
        data: Fingerprint of pixels, labels, classes, and of the split into training and validation.
        image_size: Side of the augmented images in pixels.
        normalize: The teacher's mean, std and input size.
        augment: What happens to an image, without how many views there are.
        view_seed: Seed of the views; None for the table of all crops and flips, which needs none.
        dtype: ``float16`` or ``float32``.
        precision: Of the teacher's forward pass: ``fp32``, ``bf16`` or ``fp16``.
    """

    teacher: str
    data: str
    image_size: int
    normalize: dict[str, Any]
    augment: dict[str, Any]
    view_seed: int | None
    dtype: str
    precision: str

    def digest(self) -> str:
        """Hex sha256 over all parts."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def differences(self, other: BankKey, *, teachers_own: bool = True) -> list[str]:
        """The parts that differ, each as ``part: mine, theirs``.

        Args:
            teachers_own: False leaves out what only the teacher's owner can know.
        """
        names = [f.name for f in fields(self) if teachers_own or f.name not in _TEACHERS_OWN]
        pairs = [(name, getattr(self, name), getattr(other, name)) for name in names]
        return [_difference(name, mine, theirs) for name, mine, theirs in pairs if mine != theirs]


def augmentation_key(augment: AugmentSpec) -> dict[str, Any]:
    """What decides an image's pixels in a view. A table of all views has a key of its own kind."""
    spec = augment.model_dump(mode="json", exclude={"views", "view_seed"})
    return spec | {"tabulated": augment.views == "all"}


def _difference(name: str, mine: Any, theirs: Any) -> str:
    if isinstance(mine, dict) and isinstance(theirs, dict):
        keys = [key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)]
        return "; ".join(f"{name}.{key}: {mine.get(key)}, in the bank {theirs.get(key)}" for key in sorted(keys))
    short = [value[:12] if isinstance(value, str) and len(value) == 64 else value for value in (mine, theirs)]
    return f"{name}: {short[0]}, in the bank {short[1]}"
