"""What the page says, as plain data: numbers and names, nothing of how they look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from distill.compression.candidate import CompressionCandidate
from distill.results.calibration import Reliability, RiskCoverage, Temperature
from distill.results.corruptions import CorruptionResult
from distill.results.rows import Comparison, Row

__all__ = [
    "Chain",
    "ClassErrors",
    "Curve",
    "Hard",
    "Lost",
    "Member",
    "Opinion",
    "Page",
    "Pair",
    "Provenance",
    "Sentence",
]


@dataclass(frozen=True)
class Curve:
    """What one run measured epoch by epoch: ``(epoch, value)``, both finite."""

    seed: int
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Provenance:
    """Where one run came from. What is None or empty was not recorded.

    Attributes:
        place: The run's folder, or the file.
        weights: Hex sha256 of what ships: of the run's checkpoint, or of the file.
        weights_from: The runs whose weights it is made of or began with, in words.
        command: As it was typed.
        again: A command line that repeats it; None where there is none.
    """

    place: str
    seed: int | None = None
    started: str | None = None
    seconds: float | None = None
    device: str | None = None
    threads: int | None = None
    weights: str | None = None
    weights_from: str | None = None
    data: str | None = None
    test_images: str | None = None
    teacher: str | None = None
    commit: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str | None = None
    again: str | None = None


@dataclass(frozen=True)
class Member:
    """One row of the table with all that is known of its runs.

    Attributes:
        label: What the page calls it; no two members share one.
        look: Its colour: equal for a run and its files. ``shape`` is its marker, ``hollow`` for a file.
        curves: Of every seed, by key of metrics.jsonl (``val_top1``, ``val_loss``, ``train_ce`` ...).
        parts: The keys among them that are parts of the training loss.
        reliability: Of the newest run; ``calibrated`` with its stored temperature; ``risk_coverage`` and
            ``corruptions`` are of that run, too.
        recipe: YAML text.
        settings: The recipe by the names that ``--set`` takes.
    """

    row: Row
    label: str
    look: int
    shape: str
    hollow: bool = False
    curves: Mapping[str, tuple[Curve, ...]] = field(default_factory=dict)
    parts: tuple[str, ...] = ()
    reliability: Reliability | None = None
    temperature: Temperature | None = None
    calibrated: Reliability | None = None
    risk_coverage: RiskCoverage | None = None
    corruptions: CorruptionResult | None = None
    recipe: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    provenance: tuple[Provenance, ...] = ()


@dataclass(frozen=True)
class Sentence:
    """A statement, and how sure it is: the interval, the test, what would tell."""

    text: str
    detail: str = ""


@dataclass(frozen=True)
class ClassErrors:
    """Share of a class's ``n`` test images that each of two models misses; None for a class without images."""

    label: str
    n: int
    teacher: float | None
    student: float | None


@dataclass(frozen=True)
class Lost:
    """Images of class ``label`` taken for ``predicted``, of all runs the mean: the teacher's and the student's."""

    label: str
    predicted: str
    teacher: float
    student: float


@dataclass(frozen=True)
class Opinion:
    """The class that a model prefers, its probability, and whether it is right; of several seeds the mean answer."""

    label: str
    probability: float
    right: bool


@dataclass(frozen=True)
class Hard:
    """A test image that the student answers worst.

    Attributes:
        png: The picture itself.
        side: Of the picture, in pixels.
        index: Its position in the test set; ``file`` its name where it has one.
        truth: Probability that the student gives to the true class.
    """

    png: bytes
    side: int
    index: int
    label: str
    truth: float
    student: Opinion
    teacher: Opinion | None
    file: str | None = None


@dataclass(frozen=True)
class Pair:
    """A teacher and a student on the same test images: what the student lost.

    Attributes:
        difference: ``[i][j]``: how many more images of class i the student takes for class j, of all runs the mean.
        lost: The confusions that grew most; ``found`` those that shrank most.
    """

    teacher: str
    student: str
    classes: tuple[str, ...]
    difference: tuple[tuple[float, ...], ...]
    errors: tuple[ClassErrors, ...]
    lost: tuple[Lost, ...]
    found: tuple[Lost, ...]


@dataclass(frozen=True)
class Chain:
    """What ``distill compress`` tried on the way to the file that ships.

    Attributes:
        best: The ratio of the one that ships.
    """

    folder: str
    run: str
    goal: str
    max_drop: float
    best: float
    candidates: tuple[CompressionCandidate, ...]


@dataclass(frozen=True)
class Page:
    """The page. Where a part is None or empty, ``missing`` says why, by the part's name.

    Attributes:
        made: When, as text.
        command: That makes the page again.
        before: Those that repeat what taught the members' runs, or lent them weights, and is no member.
        lead: The verdict in one sentence; ``sentences`` what it rests on.
        headline: The label of the student that the page is about.
        against: The rows held against the teacher's, by ``run``, with the statistics of that.
        differences: A setting, and its value in each member that has a recipe, in their order.
    """

    title: str
    made: str
    version: str
    command: str
    comparison: Comparison
    members: tuple[Member, ...]
    lead: str
    sentences: tuple[Sentence, ...] = ()
    headline: str | None = None
    pair: Pair | None = None
    hardest: tuple[Hard, ...] = ()
    steps: tuple[str, ...] = ()
    chains: tuple[Chain, ...] = ()
    differences: tuple[tuple[str, tuple[str, ...]], ...] = ()
    before: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)

    def member(self, label: str | None) -> Member | None:
        """The member of a label."""
        return next((each for each in self.members if each.label == label), None)
