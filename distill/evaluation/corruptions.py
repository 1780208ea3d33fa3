"""A run or a file on corrupted images: asked once, one corruption after the other, and kept beside it as it goes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from distill.data.corruptions import CORRUPTIONS_VERSION, corrupt
from distill.data.images import Split
from distill.data.streams import permutation
from distill.errors import DataError, UsageError
from distill.evaluation.askable import refuse_drawn_anew, require_classes
from distill.evaluation.assess import DatasetCache
from distill.evaluation.correct import correct
from distill.evaluation.finite import require_finite
from distill.evaluation.statistics import PairedTest, compare_values, mean_interval, share_interval
from distill.evaluation.stored import read_sealed, write_sealed
from distill.evaluation.target import EvaluationTarget
from distill.events import StageProgress, Tell, silent
from distill.models.classifier import Classifier
from distill.results.corruptions import CORRUPTIONS, SEVERITIES, CorruptedTop1, CorruptionResult
from distill.team.watch import beat

__all__ = ["CORRUPTION_IMAGES", "against", "measure_corruptions"]

CORRUPTION_IMAGES = 2000  # thirty passes over them: 60,000 answers in all
_CHUNK_VALUES = 1 << 21  # pixels' bytes at a time: as float64 they take 16 MB
_BATCH = 256
_CLEAN = "clean"
_STAGE = "corruptions"


def measure_corruptions(
    target: EvaluationTarget,
    *,
    split: str = "test",
    images: int = CORRUPTION_IMAGES,
    again: bool = False,
    data: DatasetCache | None = None,
    tell: Tell = silent,
) -> CorruptionResult:
    """Top-1 under every corruption at every severity; what is stored of these images is not asked again.

    Args:
        target: What :func:`distill.evaluation.target.evaluation_target` made of a run or a file.
        images: How many of the split, drawn without replacement, the same for every model; all where there are fewer.
        again: Ask the network about everything.
        data: Shared by several.

    Raises:
        UsageError: Fewer than two images, which show no spread.
        RunError: Some logits are NaN or infinite.
        DataError: There is no such split, or one image in it, or it is drawn from other images than when the asked was
            trained, or has other classes.
        MissingError: The data is not here, and the results are not stored.
    """
    if images < 2:
        raise UsageError(f"corruptions need at least 2 images, got {images}")
    data = data or DatasetCache()
    cache = _CorruptionCache(target, split, images)
    if not again:
        cache.read()
        if cache.is_complete and data.are_still(cache.content, target.spec, split):
            return cache.result()
    splits = data.load(target.spec)
    if not again and cache.is_complete and splits.is_drawn_anew(split, target.trained_on):
        return cache.result()  # as where the data is no longer here
    refuse_drawn_anew(splits, split, target.spec, target.place, target.trained_on)
    part = data.part(target.spec, split, target.place)
    if len(part) < 2:
        raise DataError(f"{target.place}: one image cannot show how corruptions spread", hint="more images")
    cache.begin(part, data.content(target.spec, split))
    model, todo = None, [name for name in (_CLEAN, *CORRUPTIONS) if name not in cache.right]
    for done, name in enumerate(todo):
        if model is None:
            model = target.load()
            require_classes(splits, target.spec, model)
        progress = partial(_tell, tell, todo, done)
        cache.keep(name, *_ask(model, part, cache.places, name, progress))
    return cache.result()


def _tell(tell: Tell, todo: list[str], done: int, share: float) -> None:
    tell(StageProgress(_STAGE, round(100 * (done + share)), 100 * len(todo)))


@dataclass
class _CorruptionCache:
    """What is known so far, and its file.

    Attributes:
        images: How many were asked for, out of the split's ``of``.
        places: Of those images in their split, rising.
        right: By corruption, of severities 1 to 5 (of ``clean`` one row), whether each image was recognised.
        digests: By corruption, of the corrupted images.
    """

    target: EvaluationTarget
    split: str
    images: int
    of: int = 0
    content: str | None = None
    places: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    right: dict[str, np.ndarray] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        return len(self.right) == 1 + len(CORRUPTIONS)

    def read(self) -> None:
        """Take up what an earlier call left, if it was about as many images and the same corruptions."""
        path = self.target.folder / f"{self.split}_corruptions.json"
        document = read_sealed(path, self.target.seal)
        try:
            if document is None or (document["version"], document["asked"]) != (CORRUPTIONS_VERSION, self.images):
                return
            self.content, self.of = document["content"], document["of"]
            self.places = _places(self.of, self.images)
            for name, each in document["right"].items():
                self.right[name] = _unpacked(each["bits"], len(self.places))
                self.digests[name] = each["images"]
        except (KeyError, TypeError, ValueError, AttributeError):
            self.right, self.digests = {}, {}

    def begin(self, part: Split, content: str) -> None:
        """Go on where the images are those of before; else start anew."""
        if self.content != content:
            self.right, self.digests = {}, {}
        self.content, self.of, self.places = content, len(part), _places(len(part), self.images)

    def keep(self, name: str, right: np.ndarray, digest: str) -> None:
        """Add one corruption, and write everything."""
        self.right[name], self.digests[name] = right, digest
        document: dict[str, Any] = {
            "split": self.split,
            "version": CORRUPTIONS_VERSION,
            "asked": self.images,
            "of": self.of,
            "content": self.content,
            "right": {each: {"bits": _packed(self.right[each]), "images": self.digests[each]} for each in self.right},
            "result": self.result().to_json() if self.is_complete else None,
        }
        path = self.target.folder / f"{self.split}_corruptions.json"
        write_sealed(path, document, self.target.seal)

    def result(self) -> CorruptionResult:
        """Of a complete cache."""
        shares = self.shares()
        mean = mean_interval(shares.tolist())
        assert mean is not None, "two or more images"
        cells = [
            _corrupted(name, severity, self.right[name][severity - 1])
            for name in CORRUPTIONS
            for severity in SEVERITIES
        ]
        key = hashlib.sha256("\0".join(f"{name} {self.digests[name]}" for name in (_CLEAN, *CORRUPTIONS)).encode())
        return CorruptionResult(
            n=len(self.places),
            clean_top1=float(self.right[_CLEAN].mean()),
            mean_top1=mean.estimate,
            mean_low=max(mean.low, 0.0),
            mean_high=min(mean.high, 1.0),
            cells=tuple(cells),
            images_key=key.hexdigest(),
        )

    def shares(self) -> np.ndarray:
        """Of each image, the share of its corrupted versions that were recognised."""
        return np.concatenate([self.right[name] for name in CORRUPTIONS]).mean(axis=0)


def _places(of: int, images: int) -> np.ndarray:
    return np.sort(permutation(of, "corruption images")[:images])


def _corrupted(name: str, severity: int, right: np.ndarray) -> CorruptedTop1:
    interval = share_interval(int(right.sum()), len(right))
    return CorruptedTop1(name, severity, interval.estimate, interval.low, interval.high)


def _packed(right: np.ndarray) -> list[str]:
    return [np.packbits(row).tobytes().hex() for row in right]


def _unpacked(rows: list[str], n: int) -> np.ndarray:
    bits = [np.unpackbits(np.frombuffer(bytes.fromhex(row), dtype=np.uint8)) for row in rows]
    if any(not n <= len(row) < n + 8 for row in bits):
        raise ValueError("cut")
    return np.stack([row[:n] for row in bits]).astype(bool)


def _ask(model: Classifier, part: Split, places: np.ndarray, corruption: str, tell: Any) -> tuple[np.ndarray, str]:
    """Whether each image was recognised, ``(severities, n)``, and a digest of all that were shown."""
    severities = (0,) if corruption == _CLEAN else SEVERITIES
    right, digest = np.zeros((len(severities), len(places)), dtype=bool), hashlib.sha256()
    for start, stop in _chunks(len(places), part.image_size):
        chunk = places[start:stop]
        images, labels = part.take(chunk), np.asarray(part.labels)[chunk]
        for row, severity in enumerate(severities):
            beat()
            shown = corrupt(images, corruption, severity, index=chunk) if severity else images
            digest.update(np.ascontiguousarray(shown).data)
            logits = model.logits(torch.from_numpy(shown)).cpu()
            require_finite(logits, model.place, on=f"({corruption}, severity {severity})" if severity else "(clean)")
            right[row, start:stop] = correct(logits.numpy(), labels)
            tell((start + (stop - start) * (row + 1) / len(severities)) / len(places))
    return right, digest.hexdigest()


def _chunks(n: int, side: int) -> Iterator[tuple[int, int]]:
    step = max(1, min(_BATCH, _CHUNK_VALUES // (3 * side * side)))
    return ((start, min(start + step, n)) for start in range(0, n, step))


def against(
    ours: EvaluationTarget, theirs: EvaluationTarget, *, split: str = "test", images: int = CORRUPTION_IMAGES
) -> PairedTest | None:
    """The difference of two stored results' ``mean_top1``, paired by image; None where they are of different images."""
    caches = [_CorruptionCache(target, split, images) for target in (ours, theirs)]
    for cache in caches:
        cache.read()
    mine, other = caches
    if not (mine.is_complete and other.is_complete) or len(mine.places) != len(other.places):
        return None
    if mine.digests != other.digests:  # of every corruption: another libjpeg makes other pictures of the same ones
        return None
    return compare_values(mine.shares(), other.shares(), step=1 / (len(CORRUPTIONS) * len(SEVERITIES)))
