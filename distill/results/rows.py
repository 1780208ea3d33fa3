"""The rows that tables, JSON and CSV are made of. Accuracies are fractions; names carry units."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from distill.results.figures import Figures, Latency, LayerCost

__all__ = [
    "ROW_FIELDS",
    "BankRow",
    "Check",
    "Comparison",
    "Difference",
    "DryRun",
    "Guess",
    "ModelRow",
    "ModelSummary",
    "Prediction",
    "RecipeRow",
    "Row",
    "row_labels",
]


@dataclass(frozen=True)
class Row:
    """One model in a comparison: a run, or several seeds of one recipe.

    Attributes:
        role: teacher, student or baseline.
        run: An existing run folder (the newest of several seeds); an exported file; for a teacher that is not here, its
            bank; for several teachers together, their banks.
        seeds: How many runs the means are over.
        test_top1_std: Sample standard deviation over the seeds; None for one.
        delta_top1: Test top-1 minus the teacher's.
        latency_b1_ms: Median over ``latency_b1_calls`` calls, for one image; ``latency_b32_ms`` for a batch of 32.
        images_per_s: Throughput in batches of ``throughput_batch``: 32, or 256 on a GPU.
        ece: Expected calibration error.
        test_balanced_accuracy: Mean recall over the classes; ``test_macro_f1``: mean F1. Both for imbalanced classes.
        agreement: Fraction of test images on which it predicts the teacher's class.
        test_images: How many images its accuracy was measured on.
        test_set: Identifies those images: rows with equal names were tested on the same images.
        teacher: The ``run`` of the row that this one is measured against; None where that is not in the table.
        times_smaller: The teacher's size divided by this one's; ``times_faster``: likewise for the latency for one
            image.
        runtime: What computed its test predictions, and in which arithmetic: ``torch fp32``, ``onnxruntime int8``.
        source_run: For an exported file, the run it was made from; ``agreement_source`` is the fraction of test images
            on which it predicts that run's class.
        test_top1_low: Lower end of the 95% interval of ``test_top1`` (Wilson for one run, Student's t over seeds);
            ``test_top1_high`` is the upper end.
        on_front: Whether it is on the Pareto front: no row tested on the same images is as accurate and faster for one
            image, or as fast and more accurate; None where it was not timed.
        baseline: The run whose row this one is compared with; equal to ``run`` for that row itself.
        baseline_difference: Test top-1 minus the baseline's; ``baseline_low`` to ``baseline_high`` is its 95% interval.
        baseline_p: Two-sided p-value of no difference; ``baseline_p_holm``: adjusted by Holm's rule for all runs of
            students and baselines that are held against that row; None of teachers and files, which are no methods.
        baseline_method: ``mcnemar`` (one run each), ``paired seeds``, ``separate seeds`` (fewer than two in common) or
            ``one run`` (against several); docs/statistics.md.
        baseline_n: Images for ``mcnemar``, else seeds; ``baseline_needed``: roughly how many would be enough to tell.
        baseline_verdict: ``better``, ``worse``, or ``cannot tell``.
        test_top1_each: Test top-1 of each run, in the order of ``train_seeds``; empty where it is no run's row.
        measured_on: Another machine, which measured it with a kit (``run`` is the file it wrote); None: this machine.
    """

    name: str
    role: str
    run: str
    dataset: str
    objective: str
    seeds: int
    test_top1: float | None = None
    test_top1_std: float | None = None
    delta_top1: float | None = None
    params: int | None = None
    gmacs: float | None = None
    size_mb: float | None = None
    latency_b1_ms: float | None = None
    latency_b1_p90_ms: float | None = None
    latency_b32_ms: float | None = None
    images_per_s: float | None = None
    ece: float | None = None
    agreement: float | None = None
    test_images: int | None = None
    test_set: str | None = None
    teacher: str | None = None
    times_smaller: float | None = None
    times_faster: float | None = None
    runtime: str | None = None
    source_run: str | None = None
    agreement_source: float | None = None
    test_top1_low: float | None = None
    test_top1_high: float | None = None
    on_front: bool | None = None
    baseline: str | None = None
    baseline_difference: float | None = None
    baseline_low: float | None = None
    baseline_high: float | None = None
    baseline_p: float | None = None
    baseline_method: str | None = None
    baseline_n: int | None = None
    baseline_verdict: str | None = None
    baseline_needed: int | None = None
    test_balanced_accuracy: float | None = None
    test_macro_f1: float | None = None
    measured_on: str | None = None
    throughput_batch: int | None = None
    latency_b1_calls: int | None = None
    train_seeds: tuple[int, ...] = ()
    test_top1_each: tuple[float, ...] = ()
    baseline_p_holm: float | None = None

    @property
    def is_file(self) -> bool:
        """Whether it is an exported file, here or on another machine."""
        return (self.runtime or "").startswith("onnxruntime")

    @property
    def is_method(self) -> bool:
        """Whether it is what people compare: a way to train a student, and not its teacher or a file of it."""
        return self.role != "teacher" and self.source_run is None and not self.is_file

    def same_test_images(self, other: Row) -> bool:
        """Whether both were tested on the same images; of a row that was tested on none nobody can say so."""
        return self.test_set is not None and self.test_set == other.test_set

    def with_figures(self, figures: Figures) -> Row:
        """The row with what was measured of its model."""
        row = replace(
            self,
            test_top1=figures.test_top1,
            params=figures.params,
            gmacs=figures.gmacs,
            size_mb=figures.size_mb,
            ece=figures.test_ece,
            test_balanced_accuracy=figures.test_balanced_accuracy,
            test_macro_f1=figures.test_macro_f1,
            test_images=figures.test_images,
        )
        return row.with_latency(figures.latency_ms)

    def with_latency(self, latency_ms: Mapping[int, Latency]) -> Row:
        """The row with its times, by batch size."""
        one, many = latency_ms.get(1), latency_ms.get(32)
        full = latency_ms.get(256, many)  # timed on a GPU alone
        return replace(
            self,
            latency_b1_ms=one.median_ms if one else None,
            latency_b1_p90_ms=one.p90_ms if one else None,
            latency_b1_calls=one.n if one else None,
            latency_b32_ms=many.median_ms if many else None,
            images_per_s=full.images_per_s if full else None,
            throughput_batch=full.batch_size if full else None,
        )


def row_labels(rows: Sequence[Row]) -> list[str]:
    """Names; where several rows have one, with the run's number or the file's name, or with its whole place."""
    names = [row.name for row in rows]
    for places in ([Path(row.run).name for row in rows], [row.run for row in rows]):
        often = Counter(names)
        longer = [f"{row.name} {place}" for row, place in zip(rows, places, strict=True)]
        names = [more if often[name] > 1 else name for name, more in zip(names, longer, strict=True)]
    return names


@dataclass(frozen=True)
class Difference:
    """Test top-1 of one row minus that of another on the same images, from ``low`` to ``high`` with 95%.

    ``method`` is one of those for a baseline, and ``n`` what it says there.
    """

    estimate: float
    low: float
    high: float
    method: str
    n: int


ROW_FIELDS = tuple(each.name for each in fields(Row))


@dataclass(frozen=True)
class Comparison:
    """The rows of a comparison, and what they were measured on.

    Attributes:
        device: Name of the hardware.
        threads: CPU threads per operation.
        latency_n: The fewest timed calls over all models and batch sizes; None where nothing was timed.
        notes: What the reader must know: models left out, seeds missing, banks used.
        difference: Gives the difference of any two rows, computed on demand; None for rows that cannot be paired.
    """

    rows: tuple[Row, ...]
    device: str
    threads: int
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    latency_n: int | None = None
    difference: Callable[[Row, Row], Difference | None] | None = field(default=None, repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """The document that ``distill compare --json`` prints."""
        return {
            "rows": [asdict(row) for row in self.rows],
            "device": self.device,
            "threads": self.threads,
            "versions": dict(self.versions),
            "latency_n": self.latency_n,
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Guess:
    """One class and the probability the model gives it."""

    label: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one picture.

    Attributes:
        label: The true class where the file's place tells it.
        teacher: What the teacher would say, where one was asked.
    """

    file: str
    top: tuple[Guess, ...]
    label: str | None = None
    teacher: Guess | None = None

    def to_json(self) -> dict[str, Any]:
        """One entry of the document that ``distill predict --json`` prints."""
        document: dict[str, Any] = {"file": self.file, "top": [asdict(guess) for guess in self.top]}
        if self.label is not None:
            document["label"] = self.label
        if self.teacher is not None:
            document["teacher"] = asdict(self.teacher)
        return document


@dataclass(frozen=True)
class ModelRow:
    """One network a recipe can name; ``gmacs`` at ``input_size``."""

    name: str
    role: str
    source: str
    params: int
    gmacs: float | None
    input_size: int
    num_classes: int
    origin: str = "distill"


@dataclass(frozen=True)
class ModelSummary:
    """A network, layer by layer.

    Attributes:
        stages: What objectives on features call its stages, with the shape of each for one image.
    """

    model: ModelRow
    layers: tuple[LayerCost, ...]
    stages: dict[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class RecipeRow:
    """One line of ``distill recipe list``."""

    name: str
    role: str
    dataset: str
    model: str
    objective: str
    teacher: str | None
    epochs: int
    purpose: str


@dataclass(frozen=True)
class DecodedSet:
    """Decoded images that are kept on this machine.

    Attributes:
        folder: Its entry in the cache.
        source: The folder or archive that it was decoded from; of a data set by name its classes.
        images: How many, by split.
        image_size: Pixels of a side; None where the entry is damaged.
        made: When it was written, in UTC.
    """

    folder: str
    source: str
    images: Mapping[str, int]
    image_size: int | None
    size_mb: float
    made: str


@dataclass(frozen=True)
class BankRow:
    """One bank of stored teacher logits.

    Attributes:
        status: ``ok``, or what is wrong with it.
        augment: What an image goes through, in a few words.
        view_seed: None for a table of all crops and flips.
        precision: Of the teacher's forward pass.
        teacher_top1: On the test set, a fraction.
        teacher_sha256: Of the teacher's weights.
        damaged: Files that are not what the teacher answered, by their paths inside the bank.
        asked: How many stored answers the teacher was asked for again; None where it was not asked.
        max_difference: The largest absolute difference between stored and new logits.
    """

    path: str
    teacher: str
    dataset: str
    images: int
    views: int
    dtype: str
    size_mb: float
    status: str = "ok"
    classes: int | None = None
    image_size: int | None = None
    augment: str | None = None
    view_seed: int | None = None
    precision: str | None = None
    teacher_top1: float | None = None
    teacher_params: int | None = None
    teacher_sha256: str | None = None
    damaged: tuple[str, ...] = ()
    asked: int | None = None
    max_difference: float | None = None


@dataclass(frozen=True)
class DryRun:
    """What a run would be, found by building everything and training three steps; nothing was written.

    Attributes:
        output_shape: Of the logits of one batch.
        memory_mb: Peak memory of the step: the device's, or on a CPU the process's.
        seconds_per_step: Of one step after warm-up.
        seconds: Estimated time of the whole run.
    """

    name: str
    role: str
    dataset: str
    device: str
    precision: str
    train_images: int
    val_images: int
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    params: int
    max_params: int | None
    gmacs: float | None
    steps_per_epoch: int
    epochs: int
    memory_mb: float | None = None
    seconds_per_step: float | None = None
    seconds: float | None = None
    teacher: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Check:
    """One line of ``distill doctor``."""

    topic: str
    name: str
    status: Literal["ok", "absent", "broken"]
    detail: str
    fix: str | None = None
