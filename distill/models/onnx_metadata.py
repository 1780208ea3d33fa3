"""What an exported file says of itself, in the file: classes, sizes, recipe, and which weights it was made from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from distill.errors import RunError

__all__ = ["FileAbout"]

_KEY = "distill."


@dataclass(frozen=True)
class FileAbout:
    """The metadata of one exported file.

    Attributes:
        name: Of the recipe it was made from.
        role: teacher, student or baseline.
        classes: In the order of the logits.
        image_size: Side of the images it takes, in pixels.
        weights_sha256: Of the run's weights and buffers: says which run it came from, wherever both lie now.
        recipe: The run's resolved recipe, YAML.
        params: Parameters of the network it was made from.
        gmacs: Multiply-accumulates of one image, in billions.
        arithmetic: ``fp32`` or ``int8``.
        scheme: How it was quantised, in a few words; empty for fp32.
        version: Of the distill that wrote it.
        temperature: What its logits were divided by so that confidence is accuracy; None where they are the network's.
        calibration_images: How many training images set the ranges of int8; 0 for fp32. ``calibration_sha256`` says
            which: of their digests, one after the other.
        max_drop: How much of its run's validation top-1 an int8 file was allowed to lose, a fraction; None for fp32,
            and where it was held against another run. ``proven``: by the upper end of the interval.
        trained_on: Fingerprint of the images that the run learned from; empty where it is not known.
    """

    name: str
    role: str
    classes: tuple[str, ...]
    image_size: int
    weights_sha256: str
    recipe: str
    params: int
    gmacs: float
    arithmetic: str = "fp32"
    scheme: str = ""
    version: str = ""
    temperature: float | None = None
    calibration_images: int = 0
    calibration_sha256: str = ""
    max_drop: float | None = None
    proven: bool = False
    trained_on: str = ""

    def to_metadata(self) -> dict[str, str]:
        """Texts by key, as ONNX keeps them."""
        return {f"{_KEY}{key}": json.dumps(value, ensure_ascii=False) for key, value in asdict(self).items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], *, place: str) -> FileAbout:
        """Read back what :meth:`to_metadata` made.

        Raises:
            RunError: The file is not distill's, or its metadata is damaged.
        """
        ours = {key.removeprefix(_KEY): text for key, text in metadata.items() if key.startswith(_KEY)}
        if not ours:
            raise RunError(
                f"{place} does not say what it classifies: it was not exported by distill",
                hint="export a run: distill export RUN",
            )
        try:
            about = cls(**{key: json.loads(text) for key, text in ours.items() if key in cls.__dataclass_fields__})
        except (TypeError, ValueError, RecursionError) as error:
            raise RunError(f"{place}: its metadata is damaged ({error})", hint="export it again") from error
        return about._checked(place)

    def _checked(self, place: str) -> FileAbout:
        texts = [self.name, self.role, self.weights_sha256, self.recipe, self.arithmetic, self.scheme, self.version]
        texts += [self.calibration_sha256, self.trained_on]
        is_list = isinstance(self.classes, list | tuple) and all(isinstance(each, str) for each in self.classes)
        is_size = isinstance(self.image_size, int) and 0 < self.image_size <= 4096
        numbers = isinstance(self.params, int) and isinstance(self.calibration_images, int)
        numbers = numbers and isinstance(self.gmacs, int | float)
        numbers = numbers and all(
            each is None or isinstance(each, int | float) for each in (self.temperature, self.max_drop)
        )
        if not (is_list and is_size and numbers and all(isinstance(text, str) for text in texts)):
            raise RunError(f"{place}: its metadata is damaged", hint="export it again")
        return FileAbout(**{**self.__dict__, "classes": tuple(self.classes)})
