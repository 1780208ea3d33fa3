"""What ``bank.json`` says: the key, the teacher, and which files of which views there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from distill.results.figures import Figures
from distill.teaching.bank_files import chunk_name
from distill.teaching.identity import Identity
from distill.teaching.key import BankKey

__all__ = ["BankInfo", "TeacherRecord", "chunk_bounds", "completed"]

_CHUNK_BYTES = 15_000_000


@dataclass(frozen=True)
class TeacherRecord:
    """What is known of a bank's teacher where only the bank is.

    Attributes:
        recipe: As YAML text.
        dataset: What it was trained on, as tables call it.
        trained_on: Fingerprint of its training images; None where its run did not say.
    """

    name: str
    recipe: str
    dataset: str
    figures: Figures
    trained_on: str | None = None

    def to_json(self) -> dict[str, Any]:
        """For ``bank.json``."""
        about = {"name": self.name, "recipe": self.recipe, "dataset": self.dataset, "trained_on": self.trained_on}
        return about | self.figures.to_json()

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> TeacherRecord:
        """What :meth:`to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: It is damaged.
        """
        texts = {name: tree[name] for name in ("name", "recipe", "dataset")}
        if not all(isinstance(text, str) for text in texts.values()):
            raise ValueError("its teacher makes no sense")
        trained_on = tree.get("trained_on")
        if not (trained_on is None or isinstance(trained_on, str)):
            raise ValueError("its teacher makes no sense")
        return cls(**texts, figures=Figures.from_json(tree), trained_on=trained_on)


@dataclass(frozen=True)
class BankInfo:
    """What ``bank.json`` says.

    Attributes:
        images: N, how many training images each view holds.
        runtime: What computed the answers: ``name``, ``version``, ``device_type``. Whoever adds views asks through the
            same ``name``; whoever reads needs none.
        views: How many views are complete, counted from 0.
        teacher: None until it was measured.
        checksums: sha256 of each file, by its path inside the bank.
        plans: Checksum of each view's plan.
        data: The recipe's ``data:`` section: where the images were found. Not part of the key.
        features: How many pooled features stand beside each image's logits, behind them.
        begun: sha256 of each file of views that are not complete.
        begun_plans: Checksum of those views' plans, by their numbers.
    """

    key: BankKey
    images: int
    runtime: dict[str, str]
    views: int = 0
    teacher: TeacherRecord | None = None
    checksums: dict[str, str] = field(default_factory=dict)
    plans: tuple[str, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)
    features: int = 0
    begun: dict[str, str] = field(default_factory=dict)
    begun_plans: dict[str, str] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """Numbers of one image in one view."""
        return len(self.classes) + self.features

    @property
    def classes(self) -> tuple[str, ...]:
        """The teacher's classes, in the order of its logits."""
        return self.identity.classes

    @property
    def identity(self) -> Identity:
        """Who answered."""
        assert self.key.teacher is not None, "a bank has a teacher"
        return self.key.teacher

    @property
    def view_bytes(self) -> int:
        """Bytes of one view."""
        return self.images * self.width * np.dtype(self.key.dtype).itemsize


def chunk_bounds(info: BankInfo) -> list[tuple[int, int]]:
    """Where a view is cut so that no file is over 15 MB: ``[(first image, end), ...]``."""
    row_bytes = max(info.view_bytes // max(info.images, 1), 1)
    step = max((_CHUNK_BYTES - 256) // row_bytes, 1)  # 256: the .npy header
    return [(start, min(start + step, info.images)) for start in range(0, info.images, step)]


def completed(info: BankInfo) -> BankInfo:
    """The same, with those views counted that have all their parts."""
    while True:
        names = [chunk_name(info.views, part) for part in range(len(chunk_bounds(info)))]
        if not all(name in info.begun for name in names):
            return info
        begun, plans = dict(info.begun), dict(info.begun_plans)
        checksums = {**info.checksums, **{name: begun.pop(name) for name in names}}
        all_plans = (*info.plans, plans.pop(str(info.views)))
        info = replace(info, views=info.views + 1, checksums=checksums, plans=all_plans, begun=begun, begun_plans=plans)
