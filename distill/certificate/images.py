"""Which images the steps on the way to a file read, and whether those that taught and those that judged are apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from distill.data.images import Split, digest_of_all, evenly_spaced_positions, image_digests
from distill.data.splits import Splits, load_splits
from distill.errors import DataError, DistillError, MissingError, RunError
from distill.events import Tell
from distill.pipeline.provenance import about_data
from distill.recipe.schema import DataSpec
from distill.results.certificate import Overlap, Part
from distill.runs import RunFolder

__all__ = ["Images", "are_disjoint"]

_TRAINING, _UNLABELLED, _VALIDATION, _TEST, _CALIBRATION = (
    "training", "unlabelled", "validation", "test", "calibration",
)  # fmt: skip
_FINGERPRINTS = ("fingerprint", "val_fingerprint", "unlabelled_fingerprint")  # labelled, set aside, unlabelled


class Images:
    """The parts of the data that steps read, each digested once, image by image.

    Args:
        main: The run that the file is of: its parts are called by their plain names.

    Raises:
        RunError: The data is no longer what the run was trained on.
        MissingError, DataError: It is not here, or cannot be used.
    """

    def __init__(self, main: RunFolder, tell: Tell) -> None:
        self._digests: dict[str, list[bytes]] = {}
        self._known: dict[tuple[str, ...], dict[str, str]] = {}
        self._tell = tell
        self._side: int | None = None
        self._main = main.recipe().data
        self.splits = self._load(main)
        self._side = self.splits.train.image_size
        self.of_run(main)

    def of_run(self, run: RunFolder) -> dict[str, str]:
        """The names of the parts that a run trained on and validated on, by what they were to it."""
        recorded = run.info.data or {}
        key = tuple(str(recorded.get(name)) for name in _FINGERPRINTS)
        if key not in self._known:
            first = not self._known
            splits = self.splits if first else self._load(run)
            self._known[key] = self._add(splits, "" if first else f" of {run.path}", with_test=first)
        return self._known[key]

    def calibration(self, pixels_sha256: str, count: int) -> str | None:
        """The name of the images that set ranges, which a file says are the ``count`` spread over training images.

        None where these are not the ones: the file is of another version's, or of other data.
        """
        training = self._digests[_TRAINING]
        chosen = [training[at] for at in evenly_spaced_positions(len(training), count).tolist()] if count else []
        if not chosen or digest_of_all(chosen) != pixels_sha256:
            return None
        self._digests[_CALIBRATION] = chosen
        return _CALIBRATION

    def parts(self) -> tuple[Part, ...]:
        """All that was read."""
        return tuple(Part(name=name, images=len(of), sha256=digest_of_all(of)) for name, of in self._digests.items())

    def overlaps(self) -> tuple[Overlap, ...]:
        """How many images those that judge share with those that taught, for every two of them."""
        sets = {name: set(of) for name, of in self._digests.items()}
        found = [
            Overlap(one=name, other=judge, images=len(sets[name] & sets[judge]))
            for judge in (_VALIDATION, _TEST)
            for name in sets
            if judge in sets and _holds_nothing_of(name, judge)
        ]
        if _CALIBRATION in sets:
            shared = len(sets[_CALIBRATION] & sets[_TRAINING])
            found.append(Overlap(one=_CALIBRATION, other=_TRAINING, images=shared, within=True))
        return tuple(found)

    def _load(self, run: RunFolder) -> Splits:
        """What a run was trained on; where its own folder of data is gone, or is another's, in that of the main run."""
        own, found = run.recipe().data, list[DistillError]()
        for root in self._roots(own):
            try:
                return self._loaded(run, own.model_copy(update={"root": root}))
            except (RunError, MissingError, DataError) as error:
                found.append(error)
        raise found[0]

    def _roots(self, own: DataSpec) -> list[str]:
        if own.name != self._main.name or own.root == self._main.root:
            return [own.root]
        roots = [own.root, self._main.root]
        return roots if Path(own.root).exists() else roots[::-1]  # else it would be downloaded there

    def _loaded(self, run: RunFolder, spec: DataSpec) -> Splits:
        recorded, splits = run.info.data or {}, load_splits(spec, self._tell, unlabelled=True)
        here = about_data(splits)
        if any(recorded.get(name) not in (None, here.get(name)) for name in _FINGERPRINTS):
            raise RunError(
                f"{run.path}: the images here are not those that it was trained on, so nothing shows which it read",
                hint="restore the data of that run, or train it again",
            )
        if self._side in (None, splits.train.image_size):
            return splits
        return load_splits(spec.model_copy(update={"image_size": self._side}), self._tell, unlabelled=True)

    def _add(self, splits: Splits, suffix: str, *, with_test: bool) -> dict[str, str]:
        parts: dict[str, Split | None] = {_TRAINING: splits.labelled, _VALIDATION: splits.val}
        if splits.unlabelled is not None:
            parts[_UNLABELLED] = splits.train.subset(np.arange(len(splits.train_index), len(splits.train)))
        if with_test:
            parts[_TEST] = splits.test
        names = {}
        for kind, split in parts.items():
            if split is not None and len(split):
                names[kind] = kind + suffix
                self._digests[kind + suffix] = image_digests(split.chunks())
        return names


def are_disjoint(overlaps: Sequence[Overlap], *, all_known: bool) -> bool | None:
    """Whether what judged was never taught, and what was tested neither taught nor chosen by; None: not shown.

    Args:
        overlaps: Of :meth:`Images.overlaps`.
        all_known: Whether every step told which images it read.
    """
    if any(each.images for each in overlaps if not each.within):
        return False
    return True if all_known else None


def _holds_nothing_of(name: str, judge: str) -> bool:
    """Whether a part must share no image with one that judges: validation images of other runs judged, too."""
    return name != judge and not (judge == _VALIDATION and name.startswith((_VALIDATION, _TEST)))
