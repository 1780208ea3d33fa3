"""What the commands that write files report."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from distill.compression.candidate import CompressionCandidate
from distill.compression.choose import Attempt
from distill.compression.parity import Parity
from distill.evaluation.statistics import PairedTest
from distill.results.figures import Figures
from distill.results.rows import Comparison

__all__ = ["Compressed", "Exported", "Format", "Imported", "Pruned", "Quantized", "Soup", "SoupMember"]

Format = Literal["onnx", "torch", "timm"]


@dataclass(frozen=True)
class Exported:
    """A file that was written, and what was shown of it before.

    Attributes:
        file: Where it is.
        run: The run it was made from.
        opset: Of ONNX; None for others.
        temperature: What its logits are divided by, in the file; None where they are the network's.
    """

    file: Path
    run: Path
    format: Format
    runtime: str
    size_mb: float
    opset: int | None
    parity: Parity
    temperature: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The document that ``distill export --json`` prints."""
        return asdict(self) | {"file": str(self.file), "run": str(self.run)}


@dataclass(frozen=True)
class Quantized:
    """An int8 file, and everything that was tried before it.

    Attributes:
        run: The run it was made from.
        trained: The run of quantisation-aware training that the file is of; None: the file is of ``run``.
        scheme: How it was quantised.
        split: The images it was judged on: ``val``, or ``train`` where the run has no validation images.
        latency_b1_ms: Median for one image, in turn with fp32's ``fp32_latency_b1_ms`` on ``threads`` threads.
    """

    file: Path
    run: Path
    trained: Path | None
    scheme: str
    runtime: str
    size_mb: float
    fp32_size_mb: float
    split: str
    calibration_images: int
    latency_b1_ms: float
    fp32_latency_b1_ms: float
    threads: int
    attempts: tuple[Attempt, ...]

    @property
    def kept(self) -> Attempt:
        """The attempt that is the file."""
        return next(each for each in self.attempts if each.kept)

    def to_json(self) -> dict[str, Any]:
        """The document that ``distill quantize --json`` prints."""
        own = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "attempts"}
        texts = {"file": str(self.file), "run": str(self.run)}
        trained = {"trained": None if self.trained is None else str(self.trained)}
        return own | texts | trained | {"attempts": [each.to_json() for each in self.attempts]}


@dataclass(frozen=True)
class Compressed:
    """What a chain came to.

    Attributes:
        folder: Of the chain: everything that it made is in it.
        run: The run that it began with.
        goal: What the best candidate has least of.
        candidates: The run itself, and every cut that was tried, from the largest to the smallest.
        best: The one that ships.
        file: Its int8 file; ``fp32`` the same network in fp32.
        comparison: The run, the best candidate, their files and their teacher, measured side by side.
        plot: Accuracy against parameters and latency.
    """

    folder: Path
    run: Path
    goal: str
    max_drop: float
    candidates: tuple[CompressionCandidate, ...]
    best: CompressionCandidate
    file: Path
    fp32: Path
    comparison: Comparison
    plot: Path

    def to_json(self) -> dict[str, Any]:
        """The document that ``distill compress --json`` prints."""
        paths = {name: str(getattr(self, name)) for name in ("folder", "run", "file", "fp32", "plot")}
        tried = [each.to_json() | {"best": each.ratio == self.best.ratio} for each in self.candidates]
        return (
            paths
            | {"goal": self.goal, "max_drop": self.max_drop, "candidates": tried}
            | {"comparison": self.comparison.to_json()}
        )


@dataclass(frozen=True)
class Pruned:
    """A network with fewer channels, and the run that trained it on.

    Attributes:
        source: The run it was cut from.
        cut: The run that holds the surviving weights, not trained on.
        run: The run that went on from there; None with ``train=False``.
        criterion: How channels were ranked.
        multiple: What widths are multiples of.
        before: Of ``source``: parameters, GMACs, size, latency for one image, validation top-1.
        after: Of ``cut``; ``trained_val_top1`` is ``run``'s.
    """

    source: Path
    cut: Path
    run: Path | None
    criterion: str
    multiple: int
    before: Figures
    after: Figures
    trained_val_top1: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The document that ``distill prune --json`` prints."""
        paths = {"source": str(self.source), "cut": str(self.cut), "run": None if self.run is None else str(self.run)}
        figures = {"before": self.before.to_json(), "after": self.after.to_json()}
        own = {"criterion": self.criterion, "multiple": self.multiple, "trained_val_top1": self.trained_val_top1}
        return paths | own | figures


@dataclass(frozen=True)
class SoupMember:
    """One of the runs whose weights were averaged, or tried.

    Attributes:
        top1: Of the run alone, on the images that the mean is judged on, a fraction.
        used: Whether it is in the mean.
    """

    run: Path
    top1: float
    used: bool

    def to_json(self) -> dict[str, Any]:
        """As it stands in the document of ``distill soup --json``."""
        return {"run": str(self.run), "top1": self.top1, "used": self.used}


@dataclass(frozen=True)
class Soup:
    """The mean of the weights of several runs, as a run of its own.

    Attributes:
        run: The run that holds the mean.
        greedy: Whether the members were chosen one by one on these images.
        split: The images that it was judged on: ``val``, or ``train`` where the runs have no validation images;
            ``images`` of them.
        top1: Of the mean, a fraction.
        against_best: The mean against the member that is best alone, on these images, paired.
    """

    run: Path
    members: tuple[SoupMember, ...]
    greedy: bool
    split: str
    images: int
    top1: float
    against_best: PairedTest

    def to_json(self) -> dict[str, Any]:
        """The document that ``distill soup --json`` prints."""
        own = {"greedy": self.greedy, "split": self.split, "images": self.images, "top1": self.top1}
        against = asdict(self.against_best) | {"verdict": self.against_best.verdict}
        members = {"members": [each.to_json() for each in self.members]}
        return {"run": str(self.run)} | own | {"against_best": against} | members


@dataclass(frozen=True)
class Imported:
    """A run that holds weights which were trained elsewhere.

    Attributes:
        checkpoint: The file that they are from; ``sha256`` is its digest, ``entry`` the dictionary in it (else empty).
        tensors: How many there are; ``by_order``: matched in their order, as their names are not the network's.
        mean: Of pixels in 0..1, by channel, as the network is given them; ``std`` likewise; ``stated`` is where both
            are from: the recipe, timm, or so many training images.
        split: The images that it was judged on: ``val``, or ``train`` where there are no validation images; ``images``
            of them.
        top1: On these, a fraction.
    """

    run: Path
    checkpoint: Path
    sha256: str
    entry: str
    tensors: int
    by_order: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    stated: str
    params: int
    split: str
    images: int
    top1: float

    def to_json(self) -> dict[str, Any]:
        """The document that ``distill import --json`` prints."""
        return asdict(self) | {"run": str(self.run), "checkpoint": str(self.checkpoint)}
