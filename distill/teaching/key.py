"""What a bank's answers depend on. A student may read a bank only where all of it agrees."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from distill.data.augment import APPLIED_VERSION
from distill.data.splits import Splits
from distill.files import json_sha256
from distill.recipe import Recipe
from distill.recipe.schema import AugmentSpec
from distill.teaching.identity import Identity
from distill.text import brief

__all__ = ["BankKey", "augmentation_key", "bank_key"]

_LATER = ("rand_augment", "trivial_augment", "jitter", "grayscale", "blur")  # off, they are no part of a key
_TEACHERS_OWN = ("teacher",)  # a student far from the teacher cannot know it


@dataclass(frozen=True)
class BankKey:
    """The parts of a bank's identity; see :meth:`digest`.

    What computed the answers (a library, its version, a device) is not among them: a bank records it, and whoever
    reads a bank need not have it.

    Attributes:
        teacher: Who answered; None in the key of a student that is far from its teacher.
        data: Fingerprint of pixels, labels, classes, of the split for validation, and of images without labels.
        image_size: Side of the augmented images in pixels.
        augment: What happens to an image, without how many views there are.
        view_seed: Seed of the views; None for the table of all crops and flips, which needs none.
        applied: Version of the arithmetic that makes a view's pixels of its plan.
        dtype: ``float16`` or ``float32``.
        features: ``pooled``, or None: logits alone, as in banks that are older than features.
    """

    teacher: Identity | None
    data: str
    image_size: int
    augment: dict[str, Any]
    view_seed: int | None
    applied: int
    dtype: str
    features: str | None = None

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> BankKey:
        """Read what ``asdict`` gave and JSON kept.

        Raises:
            TypeError, ValueError, KeyError: It is none.
        """
        key = cls(**(tree | {"teacher": Identity.from_json(tree["teacher"])}))
        if not (
            isinstance(key.augment, dict) and key.dtype in ("float16", "float32") and key.features in (None, "pooled")
        ):
            raise ValueError("its augmentation or dtype makes no sense")
        return key

    def digest(self) -> str:
        """Hex sha256 over all parts."""
        return json_sha256({name: part for name, part in asdict(self).items() if name != "features" or part})

    def differences(self, other: BankKey, *, teachers_own: bool = True) -> list[str]:
        """The parts that differ, each as ``part: mine, theirs``. Features that nobody asks for are no difference.

        Args:
            teachers_own: False leaves out what only the teacher's owner can know.
        """
        names = [f.name for f in fields(self) if teachers_own or f.name not in _TEACHERS_OWN]
        mine, theirs = asdict(self), asdict(other)
        mine["features"] = self.features or other.features
        return [_difference(name, mine[name], theirs[name]) for name in names if mine[name] != theirs[name]]


def bank_key(recipe: Recipe, splits: Splits, teacher: Identity | None, *, dtype: str | None = None) -> BankKey:
    """The key of the bank that a student's recipe reads; every key is made here.

    Args:
        teacher: None where the student knows only what a bank says of it.
        dtype: In place of the recipe's ``teacher.logits_dtype``.
    """
    augment = recipe.augment
    return BankKey(
        teacher=teacher,
        data=splits.shown_fingerprint,
        image_size=recipe.data.side,
        augment=augmentation_key(augment),
        view_seed=None if augment.views == "all" else augment.view_seed,
        applied=APPLIED_VERSION,
        dtype=dtype or recipe.logits_dtype,
        features="pooled" if recipe.stored_features else None,
    )


def augmentation_key(augment: AugmentSpec) -> dict[str, Any]:
    """What decides an image's pixels in a view. A table of all views has a key of its own kind."""
    spec = augment.model_dump(mode="json", exclude={"views", "view_seed"})
    if not augment.hflip_alternates:
        del spec["hflip_alternates"]
    for name in _LATER:
        if not augment.turned_on[name]:
            del spec[name]
    return spec | {"tabulated": augment.views == "all"}


def _difference(name: str, mine: Any, theirs: Any) -> str:
    if isinstance(mine, dict) and isinstance(theirs, dict):
        keys = [key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)]
        return "; ".join(_difference(f"{name}.{key}", mine.get(key), theirs.get(key)) for key in sorted(keys))
    return f"{name}: {_brief(mine)}, in the bank {_brief(theirs)}"


def _brief(value: Any) -> str:
    return f"{len(value)} names" if isinstance(value, tuple) and len(value) > 3 else brief(value)
