"""What a certificate says of a file: measured how, on which machine, on which images, made by which steps."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "Accuracy",
    "Certificate",
    "Drop",
    "FileFacts",
    "Machine",
    "Overlap",
    "Part",
    "Promise",
    "Step",
    "Timing",
    "Tree",
]


class Tree(BaseModel):
    """Frozen, strict types, no key that is not known, no NaN."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class FileFacts(Tree):
    """Which file it is. ``scheme`` is how it was quantised, empty for fp32; ``classes`` how many it tells apart."""

    name: str
    sha256: str
    size_bytes: int
    runtime: str
    scheme: str
    params: int
    gmacs: float
    classes: int
    image_size: int
    weights_sha256: str


class Machine(Tree):
    """Where it was measured. ``instruction_set`` are the vector instructions that kernels are picked by."""

    cpu: str
    instruction_set: tuple[str, ...]
    cores: int
    affinity: str | None
    system: str


class Timing(Tree):
    """Latency of one batch size.

    Attributes:
        p99_ms: None where fewer than 662 calls were timed.
        noise: What the medians of the same file, opened twice and timed in turn, differed by, as a share.
        pace_ms: Median of a graph that never changes, timed in turn with them; None where a kit timed.
    """

    median_ms: float = Field(gt=0)
    p90_ms: float
    p99_ms: float | None
    n: int
    noise: float
    pace_ms: float | None = Field(None, gt=0)


class Accuracy(Tree):
    """Top-1 of the file with Wilson's 95% interval.

    Attributes:
        content: Hex sha256 of these images, their labels and class names.
        right: Which it answers right, a bit an image in their order, base64.
    """

    split: Literal["test", "val"]
    images: int = Field(ge=1)
    top1: float
    low: float
    high: float
    content: str
    right: str


class Drop(Tree):
    """What the file loses against a run on the same images, with its paired 95% interval; positive is a loss.

    Attributes:
        reference: ``run`` (what it was made from), ``teacher`` or ``named``.
        allowed: What may be lost, where that was promised; ``prove`` holds the interval's upper end against it.
        verdict: Of "at most ``allowed``": shown, refuted, not shown; None where nothing was promised.
        right: Which images the reference answers right, as in :class:`Accuracy`.
    """

    reference: Literal["run", "teacher", "named"]
    run: str
    weights_sha256: str
    split: Literal["test", "val"]
    images: int = Field(ge=1)
    content: str
    reference_top1: float
    estimate: float
    low: float
    high: float
    allowed: float | None
    prove: bool
    verdict: str | None
    needed: int | None
    right: str


class Promise(Tree):
    """A budget: ``quantity`` (params, gmacs, size_mb, latency_b1_ms, latency_b32_ms) is at most ``limit``."""

    quantity: str
    limit: float
    measured: float


class Part(Tree):
    """Some images: ``sha256`` is of their digests, one after the other, in their order."""

    name: str
    images: int
    sha256: str


class Overlap(Tree):
    """How many images of ``one`` are in ``other`` too, pixel by pixel; where they should be is ``within``."""

    one: str
    other: str
    images: int
    within: bool = False


class Step(Tree):
    """One thing that was done on the way to the file.

    Attributes:
        reads: What it read, by the names of parts: ``training``, or in words where that is not known.
        weights_sha256: Of what came of it.
        fingerprint: Of the data, as the run's folder has it.
        bank: The teacher's stored answers that it learned from: digest of the key, and of the answers.
        command: What was typed then; ``repeat`` does it again.
    """

    what: str
    subject: str
    reads: dict[str, str]
    weights_sha256: str | None = None
    fingerprint: str | None = None
    teacher: str | None = None
    bank: dict[str, str] | None = None
    seeds: dict[str, int] = {}
    threads: int | None = None
    command: str | None = None
    repeat: str | None = None


class Certificate(Tree):
    """All of it.

    Attributes:
        latency: By batch size.
        disjoint: Whether no image that taught, chose or calibrated anything is a test image, and none that taught or
            calibrated is one that judged; None where some step's images are not known.
        commands: What makes the file and this certificate again.
        made: What else the maker of the file has to say.
    """

    certificate: Literal[1] = 1
    file: FileFacts
    machine: Machine
    threads: int = Field(ge=1)
    versions: dict[str, str]
    latency: dict[str, Timing]
    accuracy: tuple[Accuracy, ...]
    drops: tuple[Drop, ...]
    promises: tuple[Promise, ...]
    parts: tuple[Part, ...]
    overlaps: tuple[Overlap, ...]
    disjoint: bool | None
    steps: tuple[Step, ...]
    commands: tuple[str, ...]
    notes: tuple[str, ...] = ()
    made: dict[str, Any] = {}
    written: str

    def to_json(self) -> dict[str, Any]:
        """As the file has it, but for its seal."""
        return self.model_dump(mode="json")
