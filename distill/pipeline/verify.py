"""Is a bank what its teacher answered? Every file is read, and the teacher is asked again for some images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distill.data.augment import APPLIED_VERSION
from distill.data.batches import Loader
from distill.data.splits import Splits, load_splits
from distill.data.views import view_checksum
from distill.devices import fast_kernels, resolve_device, resolve_precision
from distill.errors import DistillError, UsageError
from distill.events import Note
from distill.models.fixed_batch import ask
from distill.models.trained import Trained, load_trained
from distill.pipeline.banks import describe_bank, find_banks
from distill.pipeline.context import Options, in_asked_threads
from distill.recipe.schema import AugmentSpec, DataSpec
from distill.results.rows import BankRow
from distill.runs import RunFolder, open_run
from distill.teaching.bank import Bank
from distill.teaching.bank_files import chunk_name
from distill.teaching.bank_info import chunk_bounds
from distill.teaching.build import planned_view
from distill.teaching.identity import read_identity
from distill.teaching.live import WithPooled
from distill.teaching.rounding import round_answers
from distill.team.watch import watching
from distill.text import several

__all__ = ["verify_banks"]

# How far an answer may lie from the stored one, as a share of the largest logit, where another device, library or
# number of threads computes it. On a CPU like the one that built the bank through torch in fp32 the difference is 0.
_TOLERANCE = {"fp32": 0.01, "bf16": 0.1, "fp16": 0.05}


@watching()
@in_asked_threads
def verify_banks(
    references: Sequence[str | Path] = (),
    *,
    images: int = 64,
    teacher: str | None = None,
    repair: bool = False,
    options: Options | None = None,
) -> tuple[BankRow, ...]:
    """Compare every checksum, then run the teacher again, if it is here, on random images in random views.

    Args:
        images: How many stored logit vectors to recompute; 0: none.
        teacher: The run of the banks' teacher, if they are no longer in its run folder.
        repair: Drop what is damaged, and the views after it, so that the next build recreates it.

    Raises:
        UsageError: ``teacher`` is not the one that a bank was built from.

    Example:
        >>> {(bank.status, bank.asked) for bank in verify_banks(images=8)}
        {('ok', 8)}
    """
    options = options or Options()
    examiner = _Examiner(options, images=images, teacher=teacher)
    rows = []
    for path in find_banks(references, runs_dir=options.runs_dir):
        row = examiner.examine(path)
        rows.append(_repaired(row) if repair and row.damaged else row)
    return tuple(rows)


def _repaired(row: BankRow) -> BankRow:
    bank = Bank.read(Path(row.path))
    with bank.writing():
        bank.drop(row.damaged)
    kept = f"repaired: {bank.info.views} of {row.views} views are left"
    return replace(describe_bank(bank.path), damaged=row.damaged, status=kept)


@dataclass(frozen=True)
class _Sample:
    """Stored answers and new ones.

    Shapes:
        views, index: ``(B,)`` int64 numbers of view and image; stored, answers: ``(B, C)`` float32.
    """

    views: np.ndarray
    index: np.ndarray
    stored: Tensor
    answers: Tensor


class _Examiner:
    """Looks at one bank after the other; banks of one teacher share its weights and its data."""

    def __init__(self, options: Options, *, images: int, teacher: str | None) -> None:
        self._options, self._images, self._teacher = options, images, teacher
        self._device = resolve_device(options.device)
        self._load = cache(self._load_teacher)
        self._splits = cache(lambda spec: load_splits(spec, options.tell, unlabelled=True))

    def examine(self, path: Path) -> BankRow:
        """A bank's row, with what was found."""
        row = describe_bank(path)
        try:
            bank = Bank.read(path)
        except DistillError:
            return row
        damaged = bank.damaged_files(self._options.tell)
        if damaged:
            return replace(row, damaged=tuple(damaged), status=f"damaged: {several(damaged, most=3)}")
        if infinite := bank.not_finite():
            return replace(row, damaged=tuple(infinite), status=f"damaged: not finite: {several(infinite, most=3)}")
        if self._images == 0 or bank.info.views == 0:
            return row
        return self._asked(bank, row)

    def _asked(self, bank: Bank, row: BankRow) -> BankRow:
        try:
            if bank.info.key.applied != APPLIED_VERSION:
                raise _NotHere("its views were made into pixels by another version of distill")
            trained, splits = self._teacher_of(bank), self._data_of(bank)
        except _NotHere as reason:
            self._options.tell(Note(f"{bank.path}: the teacher was not asked again: {reason}", "warning"))
            return row
        augment = _augment_of(bank)
        chosen = _choose(bank, self._images)
        if strange := [r for r in np.unique(chosen[0]).tolist() if not _plans_agree(bank, augment, splits, r)]:
            damaged = _files_of(bank, strange)
            return replace(row, damaged=damaged, status="damaged: its views are not the ones planned today")
        sample = _ask_again(bank, trained, splits, augment, chosen)
        difference = (sample.stored - sample.answers).abs()
        row = replace(row, asked=len(sample.views), max_difference=difference.max().item())
        limit = _TOLERANCE[bank.info.identity.precision] * max(sample.answers.abs().max().item(), 1.0)
        wrong = ~(difference.amax(1) <= limit).numpy()  # what is not finite is no answer, however large the limit
        if not wrong.any():
            return row
        places = [f"view {r} image {i}" for r, i in zip(sample.views[wrong], sample.index[wrong], strict=True)]
        damaged = _files_of(bank, sample.views[wrong].tolist(), sample.index[wrong].tolist())
        return replace(row, damaged=damaged, status=f"damaged: not what the teacher answers: {several(places, most=3)}")

    # What is needed to ask

    def _teacher_of(self, bank: Bank) -> Trained:
        home, told = bank.path.absolute().parent.parent, bank.info.teacher
        if told is not None and not told.recipe:
            raise _NotHere("it is an ONNX file; its answers were held against their checksums")
        if self._teacher is not None:
            run = open_run(self._teacher, runs_dir=self._options.runs_dir)
        elif (home / "run.json").is_file():
            run = RunFolder(home)
        else:
            raise _NotHere("its run is not here; name it: --teacher RUN")
        answered = bank.info.identity
        try:
            here = read_identity(run, device=self._device)
            others = ", ".join(answered.differences(replace(here, precision=answered.precision)))
            trained = None if others else self._load(run.path, answered.precision)
        except DistillError as error:
            raise _NotHere(error.message) from error
        if trained is not None:
            return trained
        if self._teacher is not None:
            raise UsageError(
                f"{run.path} is not the teacher of {bank.path}: other {others}", hint="leave out --teacher"
            )
        raise _NotHere(f"{run.path} is not what answered (other {others}); students will build a new bank")

    def _load_teacher(self, path: Path, precision: str) -> Trained:
        # What a CPU can only emulate is computed in full there; the tolerance covers the difference.
        resolved = resolve_precision("fp32" if self._device.type == "cpu" else precision, self._device)
        return load_trained(RunFolder(path), device=self._device, precision=resolved.name)

    def _data_of(self, bank: Bank) -> Splits:
        try:
            splits = self._splits(DataSpec.model_validate_json(json.dumps(bank.info.data)))
        except (DistillError, ValueError) as error:
            reason = error.message if isinstance(error, DistillError) else "the bank does not say where its images are"
            raise _NotHere(reason) from error
        if splits.shown_fingerprint != bank.info.key.data:
            raise _NotHere(f"the images in {bank.info.data.get('root')} are not those that it was asked about")
        return splits


class _NotHere(Exception):
    """Why a teacher cannot be asked again."""


def _augment_of(bank: Bank) -> AugmentSpec:
    """The augmentation that a bank's key describes."""
    key = bank.info.key
    spec = {name: value for name, value in key.augment.items() if name != "tabulated"}
    views = "all" if key.augment.get("tabulated") else None
    return AugmentSpec.model_validate_json(json.dumps(spec | {"views": views, "view_seed": key.view_seed or 0}))


def _choose(bank: Bank, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Random stored answers, each once: int64 views and images, by view."""
    total = bank.info.views * bank.info.images
    picked = np.sort(np.random.default_rng().choice(total, size=min(count, total), replace=False))
    return picked // bank.info.images, picked % bank.info.images


def _plans_agree(bank: Bank, augment: AugmentSpec, splits: Splits, number: int) -> bool:
    view = planned_view(augment, n=len(splits.train), image_size=bank.info.key.image_size, number=number)
    return view_checksum(view) == bank.info.plans[number]


def _ask_again(
    bank: Bank, trained: Trained, splits: Splits, augment: AugmentSpec, chosen: tuple[np.ndarray, np.ndarray]
) -> _Sample:
    """Ask about a few images of many views at once: who asks view by view fills most of a batch with padding."""
    loader = Loader(splits.train, device=trained.device, fill=splits.fill)
    views, index = chosen
    pixels, stored = [], []
    for number in np.unique(views).tolist():
        here = index[views == number]
        view = planned_view(augment, n=len(splits.train), image_size=bank.info.key.image_size, number=number)
        same_view = np.full(len(loader), number, dtype=np.int64)
        pixels += [batch.images for batch in loader.epoch(here, view, same_view, len(here), keep_all=True).batches()]
        stored.append(torch.from_numpy(bank.view(number)[here].astype(np.float32)))
    pieces = torch.cat(pixels).split(512)
    asked = WithPooled(trained) if bank.info.features else trained
    classes, dtype = len(bank.info.classes), bank.info.key.dtype
    with fast_kernels(trained.device):
        answers = torch.cat([round_answers(ask(asked, piece), dtype, classes=classes).cpu() for piece in pieces])
    return _Sample(views, index, torch.cat(stored), answers)


def _files_of(bank: Bank, views: Sequence[int], index: Sequence[int] | None = None) -> tuple[str, ...]:
    """The files that hold these answers; without ``index``, all files of these views."""
    bounds = chunk_bounds(bank.info)
    if index is None:
        names = [chunk_name(view, part) for view in views for part in range(len(bounds))]
    else:
        ends = [end for _, end in bounds]
        parts = np.searchsorted(ends, index, side="right").tolist()
        names = [chunk_name(view, part) for view, part in zip(views, parts, strict=True)]
    return tuple(dict.fromkeys(names))
