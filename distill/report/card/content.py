"""What a model card says, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from distill.report.page.content import Member
from distill.results.corruptions import CorruptionResult
from distill.results.metrics import EvalResult

__all__ = ["Card"]


@dataclass(frozen=True)
class Card:
    """One model. What is None or empty is said to be not stated, or not measured.

    Attributes:
        member: Its row (several seeds: their means), its runs and recipe.
        place: How it is named to distill: the run's folder, or the file.
        is_file: Whether it is an exported file.
        result: On the test images, of the newest run: the weights that the card is for.
        corruptions: On corrupted test images, of the same.
        hub_dataset: What Hugging Face's hub calls the data set; None where that is not known.
        images: How many, by split.
        side: Of the pixels it takes.
        recipe: The settings that it was trained with, by the names that ``--set`` takes.
        recipe_text: The same as YAML.
        off: Keys of ``recipe`` that change nothing, with all below them.
        quantised: Of an int8 file: its scheme, which images set the ranges, and what it was allowed to lose.
        imported: The file that its weights are from, where they were trained elsewhere.
        weights_from: The runs or the file whose weights it is made of or began with, in words.
        elsewhere: Runs behind this one that were trained elsewhere, on images that are not known.
        teacher: The name of what it learned from; ``teacher_top1`` on the same test images.
        device: That it was timed on, with ``threads``; ``versions`` of the libraries.
        notes: What the reader must know of the figures.
    """

    member: Member
    place: str
    is_file: bool
    result: EvalResult
    classes: tuple[str, ...]
    side: int
    images: Mapping[str, int]
    recipe: Mapping[str, str]
    recipe_text: str
    device: str
    threads: int
    off: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    hub_dataset: str | None = None
    corruptions: CorruptionResult | None = None
    quantised: str | None = None
    imported: str | None = None
    weights_from: str | None = None
    elsewhere: tuple[str, ...] = ()
    teacher: str | None = None
    teacher_sha256: str | None = None
    teacher_top1: float | None = None
    notes: tuple[str, ...] = ()
