"""A run beside its teacher: how alike they answer, and how alike they are inside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.data.batches import Loader
from distill.data.images import Split
from distill.data.streams import permutation
from distill.devices import resolve_device
from distill.errors import DataError, UsageError
from distill.evaluation.agreement import agreement
from distill.evaluation.assess import IMAGES_OF, DatasetCache, assess
from distill.evaluation.assessment import Assessment
from distill.evaluation.similarity import CKA, MIN_BATCH, class_correlations, mean_divergence, mean_off_diagonal
from distill.evaluation.target import EvaluationTarget, evaluation_target
from distill.events import Note
from distill.models.fixed_batch import ask_for_all
from distill.models.onnx_open import is_exported_file
from distill.models.taps import Taps, stage_shapes
from distill.models.trained import Trained, load_trained
from distill.pipeline.context import Options, in_asked_threads
from distill.references import run_of
from distill.results.similarity import Similarity
from distill.runs import RunFolder, open_run
from distill.teaching.recorded import open_former_teacher
from distill.team.watch import watching

__all__ = ["SIMILARITY_IMAGES", "similarity"]

SIMILARITY_IMAGES = 2000
_BATCH = 128


@watching()
@in_asked_threads
def similarity(
    reference: Any,
    other: Any = None,
    *,
    split: str = "test",
    images: int = SIMILARITY_IMAGES,
    figure: str | Path | None = None,
    options: Options | None = None,
) -> Similarity:
    """Hold a run's network against its teacher's, or another's: their answers, and their stages by CKA.

    The answers are those of ``evaluate``, which are stored. The stages are looked at on images of the split that are
    drawn without replacement, the same for every pair of networks: linear CKA, unbiased, over batches of 128
    (arXiv:1905.00414, 2010.15327).

    Args:
        reference: A run: folder, name or result.
        other: Another; None: the teacher that it learned from.
        split: ``test`` or ``val``.
        images: How many of the split to look at inside, 4 or more; all where there are fewer.
        figure: Where to draw both (.svg, .png or .pdf).

    Raises:
        UsageError: A file, which has no stages; a run that learned from no teacher that is here; fewer than 4 images.
        DataError: The two know other classes, or were asked about different images.

    Example:
        >>> found = similarity("quickstart_student", images=200)
        >>> found.other_name, 0.0 < found.agreement <= 1.0
        ('quickstart_teacher', True)
    """
    options, data = options or Options(), DatasetCache()
    if split not in IMAGES_OF:
        raise UsageError(f"no split {split!r}", hint="test or val")
    if images < MIN_BATCH:
        raise UsageError(f"similarity needs at least {MIN_BATCH} images, got {images}")
    if figure is not None:
        from distill.report.figure import check_suffix

        check_suffix(Path(figure))
    device = resolve_device(options.device)
    run = _run(reference, options)
    against, notes = (_taught(run, options, device)) if other is None else (_run(other, options), ())
    targets = [evaluation_target(each, device=device) for each in (run, against)]
    answers = [assess(each, split=split, data=data, tell=options.tell) for each in targets]
    _require_alike(targets, answers, split, data)
    ours, theirs = (each.logits for each in answers)
    classes = [each.label for each in answers[0].result.per_class]
    correlations = [class_correlations(each) for each in (ours, theirs)]
    networks = [load_trained(each, device=device) for each in (run, against)]
    options.tell(Note(f"looking at {IMAGES_OF[split]} inside {targets[0].place} and {targets[1].place}"))
    parts = [_drawn(data.part(target.spec, split, target.place), images) for target in targets]
    stages, cka = _stages(networks, parts, len(classes))
    found = Similarity(
        run=targets[0].place,
        name=networks[0].name,
        other=targets[1].place,
        other_name=networks[1].name,
        split=split,
        n=len(ours),
        agreement=agreement(ours, theirs),
        divergence=mean_divergence(ours, theirs),
        correlation_difference=mean_off_diagonal(correlations[0], correlations[1]),
        images=cka.images,
        stages=stages[0],
        other_stages=stages[1],
        cka=tuple(tuple(float(each) if np.isfinite(each) else None for each in row) for row in cka.value()),
        notes=notes,
    )
    if figure is None:
        return found
    from distill.report.similarity import plot_similarity

    return replace(found, figure=str(plot_similarity(found, correlations, classes, Path(figure))))


def _run(reference: Any, options: Options) -> RunFolder:
    if is_exported_file(reference):
        raise UsageError(f"{reference} is a file, and its stages cannot be seen", hint="name the run that it came from")
    return open_run(run_of(reference), runs_dir=options.runs_dir)


def _taught(run: RunFolder, options: Options, device: torch.device) -> tuple[RunFolder, tuple[str, ...]]:
    """The run's teacher, and what must be known of it."""
    hint = f"name a run to hold it against: distill similarity {run.path} --with RUN"
    former = open_former_teacher(run, runs_dir=options.runs_dir, device=device)
    if former is None:
        raise UsageError(f"{run.path} names no run that taught it", hint=hint)
    teacher, others = former
    told = (f"{teacher.path} is no longer the teacher it learned from: other {others}",) if others else ()
    return teacher, told


def _require_alike(targets: list[EvaluationTarget], answers: list[Assessment], split: str, data: DatasetCache) -> None:
    """Refuse two that were asked about different images, decoded at whatever size, or know other classes."""
    names = [tuple(each.label for each in one.result.per_class) for one in answers]
    if names[0] != names[1]:
        raise DataError(f"{targets[0].place} and {targets[1].place} know different classes")
    side, content = targets[0].spec.side, answers[0].content
    if answers[1].content == content or data.is_same_at(targets[1].spec, split, side=side, content=content):
        return
    raise DataError(f"{targets[0].place} and {targets[1].place} were asked about different {IMAGES_OF[split]}")


def _drawn(part: Split, images: int) -> Split:
    return part.subset(permutation(len(part), "similarity images")[:images])


def _stages(networks: list[Trained], parts: list[Split], classes: int) -> tuple[list[tuple[str, ...]], CKA]:
    names = [tuple(stage_shapes(each.recipe.model, classes)) for each in networks]
    for network, known in zip(networks, names, strict=True):
        if not known:
            raise UsageError(f"{network.place}: its network has no stages that distill knows of")
    found = CKA()
    pairs = zip(*(_features(*each) for each in zip(networks, parts, names, strict=True)), strict=True)
    for ours, theirs in pairs:
        found.add(ours, theirs)
    return names, found


def _features(network: Trained, part: Split, names: tuple[str, ...]) -> Iterator[tuple[Tensor, ...]]:
    """Of each batch, what each stage answers."""
    taps = Taps(network.module, names)

    def asked(pixels: Tensor) -> tuple[Tensor, ...]:
        network(pixels)
        return taps.take()

    try:
        for batch in Loader(part, device=network.device, fill=None).plain(_BATCH):
            yield ask_for_all(asked, batch.images)
    finally:
        taps.remove()
