"""The temperature of a run or a file: fitted once on its validation images, and kept beside it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from distill.errors import DataError
from distill.evaluation.assess import DatasetCache, assess
from distill.evaluation.confidence import fit_temperature
from distill.evaluation.stored import keeping, read_temperature, write_temperature
from distill.evaluation.target import EvaluationTarget
from distill.events import Note, Tell, silent
from distill.models.classifier import Wrapped
from distill.results.calibration import Temperature

__all__ = ["Calibrated", "kept_temperature", "temperature_of"]


def temperature_of(
    target: EvaluationTarget, *, again: bool = False, data: DatasetCache | None = None, tell: Tell = silent
) -> Temperature:
    """What the logits of a model are to be divided by (arXiv:1706.04599); fitted where it is not stored.

    Args:
        target: What :func:`distill.evaluation.target.evaluation_target` made of a run or a file.
        again: Ask the network and fit anew.
        data: Shared by several.
        tell: Told before the network is asked about the validation images, which may take a while.

    Raises:
        DataError: It has no validation images.
        MissingError: They are not here, and nothing is stored.
    """
    data = data or DatasetCache()
    stored = None if again else kept_temperature(target, data)
    if stored is not None:
        return stored
    tell(Note(f"fitting a temperature on the validation images of {target.place}"))
    try:
        assessment = assess(target, split="val", again=again, data=data, tell=tell)
    except DataError as error:
        val = data.load(target.spec).val
        if val is not None and len(val):
            raise
        raise DataError(
            f"{target.place} has no validation images to fit a temperature on (data.val_fraction: 0)",
            hint="leave out --calibrated, or train with some: --set data.val_fraction=0.1",
        ) from error
    found = fit_temperature(assessment.logits, assessment.labels)
    if target.keeps:
        with keeping(f"{target.place}: its temperature is", tell):
            write_temperature(target.folder, found, target.seal, content=assessment.content)
    return found


def kept_temperature(target: EvaluationTarget, data: DatasetCache) -> Temperature | None:
    """As an earlier call fitted it, to these weights and to validation images that are still the same."""
    return read_temperature(
        target.folder, target.seal, still=lambda content: data.are_still(content, target.spec, "val")
    )


@dataclass(frozen=True)
class Calibrated(Wrapped):
    """A classifier whose logits are divided by a temperature: the same classes, other probabilities."""

    temperature: float

    def logits(self, pixels: Tensor) -> Tensor:
        """Logits ``(N, C)`` float32 of pixels ``(N, 3, S, S)`` uint8."""
        return self.inner.logits(pixels) / self.temperature
