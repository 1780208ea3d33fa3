"""The chain: prune, fine-tune, quantise, export; what each step lost is judged on validation images, and measured."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from distill.comparison import compare
from distill.compression.candidate import CompressionCandidate, Int8File
from distill.compression.chain import ChainDefinition, ChainFolder
from distill.compression.cut_limit import CutLimit
from distill.compression.prune import Criterion, require_torch_pruning
from distill.compression.results import Compressed
from distill.compression.search import Goal, best_candidate, next_ratio
from distill.devices import resolve_device
from distill.errors import DistillError, DivergedError, GateMissedError, NotPrunableError, RecipeError, UsageError
from distill.evaluation.assess import DatasetCache, assess
from distill.evaluation.drop import DropVerdict, judge_drop
from distill.evaluation.latency import time_one_image
from distill.events import Note, StageProgress
from distill.files import relative, sha256_file
from distill.models.onnx_open import open_onnx
from distill.pipeline.context import Options
from distill.pipeline.export import export
from distill.pipeline.prune import check_cut, cost_of_cut, prune_to
from distill.pipeline.quantize import check_drop, quantize
from distill.pipeline.resumable import resumed_or
from distill.report.verdict import drop_words
from distill.results.figures import Figures
from distill.results.rows import Comparison, Row
from distill.runs import RunFolder, begun_runs, open_run
from distill.teaching.identity import read_identity
from distill.teaching.recorded import former_teacher
from distill.team.stop import stopping_saves
from distill.team.watch import watching
from distill.text import counted, duration, percent

__all__ = ["compress", "lost_on_test_images"]

_STAGE = "compressing"


@watching()
def compress(
    reference: Any,
    *,
    max_drop: float = 0.003,
    prove: bool = False,
    goal: Goal = "latency",
    trials: int = 4,
    epochs: int | None = None,
    criterion: Criterion = "l2",
    name: str | None = None,
    options: Options | None = None,
) -> Compressed:
    """Prune a student as far as possible, retrain what is left, quantise and export it, and measure every step.

    The shares to keep are found by bisection: each candidate is cut from the run, learns from the run's own bank, and
    its int8 file may lose ``max_drop`` of validation top-1 against the run in total. The test set is read at the end,
    for the table. Called again with the same arguments, a chain continues where it was stopped; with another
    ``max_drop``, goal or number of trials, it keeps the networks already trained.

    Args:
        reference: A finished run that has validation images.
        prove: Judge by the upper end of the paired 95% interval instead of the estimate.
        goal: What to minimise: ``latency`` and ``macs`` cut multiply-accumulates, ``size`` cuts parameters.
        trials: The most cuts to try; 0 quantises and exports the run as it is.
        epochs: Epochs of retraining; None: as many as the run had.
        criterion: How channels are ranked: ``l2``, ``bn`` or ``taylor``.
        name: Name of the folder, ``compressed/<name>`` beside the folder of runs; None: the recipe's.

    Raises:
        GateMissedError: Even the uncut run has no int8 file that loses so little: no smaller one is sought.
        MissingError: Torch-Pruning is not installed, and something is to be cut.
        UsageError: The run has no validation images, the network cannot be cut, or the folder holds another chain.

    Example:
        >>> chain = compress("quickstart_student", max_drop=0.99, trials=0)  # 0.003, and four cuts, are the defaults
        >>> chain.file.name, chain.comparison.rows[0].role
        ('quickstart_student_int8.onnx', 'teacher')
    """
    options = options or Options()
    check_drop(max_drop)
    check_cut(criterion, epochs=epochs)
    if trials < 0:
        raise UsageError(f"--trials {trials}: how many cuts are tried at most", hint="0 quantises the run as it is")
    run = open_run(reference, runs_dir=options.runs_dir)
    if run.result("val_top1")["val_top1"] is None:
        raise UsageError(
            f"{run} has no validation images to judge by", hint=f"distill quantize {shlex.quote(str(run))}"
        )
    definition = ChainDefinition(
        weights=read_identity(run, device=torch.device("cpu")).weights,
        measure="params" if goal == "size" else "macs",
        epochs=epochs,
        criterion=criterion,
    )
    folder = ChainFolder.beside(options.runs_dir, name or run.recipe().name)
    if trials:
        require_torch_pruning()
    with stopping_saves(folder.path, hint="to continue, run the same command again"), folder.lock():
        folder.claim(definition)
        chain = _Chain(run, folder, definition, max_drop=max_drop, prove=prove, trials=trials, options=options)
        return chain.finished(chain.searched(), goal)


@dataclass
class _Chain:
    run: RunFolder
    folder: ChainFolder
    definition: ChainDefinition
    max_drop: float
    prove: bool
    trials: int
    options: Options
    data: DatasetCache = field(default_factory=DatasetCache)

    def searched(self) -> list[CompressionCandidate]:
        """The run itself, then smaller and smaller ones, as far as the search goes."""
        found = [self._tried(1.0, self.run, lambda: None)]
        verdicts: dict[float, bool] = {}
        trials = self.trials  # a share that gives a network which was tried costs nothing, and counts for nothing
        while (ratio := next_ratio(verdicts, trials=trials)) is not None:
            try:
                if twin := self._twin(ratio, found[1:]):
                    self.options.tell(Note(f"{ratio:.0%} gives the network of {twin.ratio:.0%}: {_outcome(twin)}"))
                    verdicts[ratio] = twin.holds
                    trials += 1
                    continue
                announce = partial(self._announce, ratio, tuple(found[1:]), left=trials - len(verdicts))
                found.append(self._tried(ratio, None, announce))
                verdicts[ratio] = found[-1].holds
            # out of reach: a network keeps some channels whatever is asked; or what was left could not be taught
            except (UsageError, DivergedError) as refused:
                if isinstance(refused, RecipeError):  # a mistake of the recipe's own, and none of this share
                    raise
                self.options.tell(Note(f"{ratio:.0%}: {refused.message}", "warning"))
                verdicts[ratio] = False
                if isinstance(refused, NotPrunableError):
                    break
        self.options.tell(StageProgress(_STAGE, 1, 1))
        for each in self.folder.steps().values():
            if not self._is_judged(each):
                self._discard(each)
        return sorted(found, key=lambda each: -each.ratio)

    def _twin(self, ratio: float, tried: Sequence[CompressionCandidate]) -> CompressionCandidate | None:
        """The candidate that is the network which this share would give: widths go in steps."""
        if not tried or begun_runs(self.folder.trials(ratio)):
            return None
        cost = cut_cost(self.run.path, ratio, self.definition, self.options)
        return next((each for each in tried if (each.params, each.gmacs) == (cost.params, cost.gmacs)), None)

    def _announce(self, ratio: float, before: Sequence[CompressionCandidate], *, left: int) -> None:
        """Which candidate is next, and how long the search may still take, by what its candidates took so far."""
        seconds = [each.seconds for each in before]
        time_left = f"; at most {duration(left * sum(seconds) / len(seconds))} left" if seconds else ""
        what = "parameters" if self.definition.measure == "params" else "multiply-accumulates"
        place = f"cut {self.trials - left + 1} of at most {self.trials}"
        self.options.tell(Note(f"{place}: at most {ratio:.0%} of the {what} stay{time_left}"))
        self.options.tell(StageProgress(_STAGE, self.trials - left, self.trials))

    def _tried(self, ratio: float, run: RunFolder | None, announce: Callable[[], None]) -> CompressionCandidate:
        """A candidate: as it was judged before, or judged now, which is announced."""
        before = self.folder.steps().get(ratio)
        if before is not None and self.folder.is_intact(before) and self._is_judged(before):
            self.options.tell(Note(f"{ratio:.0%}: done before, {_outcome(before)}"))
            return before
        announce()
        started = time.monotonic()
        run = run or self._cut(ratio)
        try:
            candidate = self._judged(ratio, run)
        except GateMissedError:
            self._discard(before)
            self.folder.remove_result()
            raise
        if not candidate.holds:
            self._discard(before)
        spent = time.monotonic() - started + (0.0 if before is None else before.seconds)
        candidate = replace(candidate, seconds=spent)
        self.folder.keep(candidate)
        self.options.tell(Note(f"{ratio:.0%}: {_outcome(candidate)}"))
        return candidate

    def _discard(self, before: CompressionCandidate | None) -> None:
        """Delete a file that was made under an earlier call's ``--max-drop``."""
        if before is None or before.shipped is None:
            return
        for file in (self._file(before), self._plain(before)):
            if file.is_file():
                file.unlink()
                self.options.tell(Note(f"removed {file}: it was made for another goal"))

    def _is_judged(self, candidate: CompressionCandidate) -> bool:
        return (candidate.drop.allowed, candidate.drop.prove) == (self.max_drop, self.prove)

    def _cut(self, ratio: float) -> RunFolder:
        """The run of a candidate: one that is there, finished or gone on with, or a new one."""
        into = self.folder.trials(ratio)
        return resumed_or(partial(cut_run, self.run.path, ratio, self.definition), into, self.options)

    def _judged(self, ratio: float, run: RunFolder) -> CompressionCandidate:
        drop = self._network_drop(run)
        figures = run.figures()
        assert figures.params is not None
        assert figures.gmacs is not None
        candidate = CompressionCandidate(
            ratio=ratio,
            run=relative(run.path, self.folder.path),
            params=figures.params,
            gmacs=figures.gmacs,
            drop=drop,
            shipped=None,
            why="",
            seconds=0.0,
        )
        if ratio < 1.0 and not drop.passes:  # the run itself loses nothing: its file is judged
            return replace(candidate, why="the network itself loses too much")
        try:
            return self._quantized(candidate, run)
        except GateMissedError as missed:
            if ratio == 1.0:
                raise
            return replace(candidate, why=missed.message)

    def _network_drop(self, run: RunFolder) -> DropVerdict:
        """What a candidate's network lost of the run's validation accuracy, before any rounding."""
        device = resolve_device(self.options.device)
        tell = self.options.tell
        ours, theirs = (assess(each, split="val", device=device, data=self.data, tell=tell) for each in (run, self.run))
        return judge_drop(ours.correct, theirs.correct, allowed=self.max_drop, prove=self.prove)

    def _quantized(self, candidate: CompressionCandidate, run: RunFolder) -> CompressionCandidate:
        made = quantize(
            run.path,
            max_drop=self.max_drop,
            prove=self.prove,
            against=self.run.path,
            out=self.folder.exports / f"{self._stem(candidate)}_int8.onnx",
            overwrite=True,
            options=replace(self.options, into=self.folder.qat(candidate.ratio)),
        )
        trained = None if made.trained is None else relative(made.trained, self.folder.path)
        sha256 = sha256_file(made.file)
        shipped = Int8File(made.file.name, sha256, made.scheme, made.size_mb, made.latency_b1_ms, trained)
        return replace(candidate, drop=made.kept.drop, shipped=shipped)

    def _stem(self, candidate: CompressionCandidate) -> str:
        return stem_of(self.run.recipe().name, candidate.ratio)

    def finished(self, candidates: Sequence[CompressionCandidate], goal: Goal) -> Compressed:
        """Choose, export in fp32 too, and measure everything that ships beside what it came from."""
        candidates = self._timed(candidates)
        best = best_candidate(candidates, goal)
        assert best is not None, "the run itself has a file, or the chain has ended"
        shown = [candidates[0]] if best.ratio == 1.0 else [candidates[0], best]
        fp32 = [self._exported(each) for each in shown]
        files = [path for each, plain in zip(shown, fp32, strict=True) for path in (plain, self._file(each))]
        runs = [self.run.path, *(self.folder.run_of(each).path for each in shown[1:])]
        runs += [self.folder.path / each.shipped.trained for each in shown if each.shipped and each.shipped.trained]
        comparison = compare(
            [str(each) for each in (*self._teacher(), *runs, *files)],
            runs_dir=self.options.runs_dir,
            device=self.options.device,
            threads_used=self.options.timing_threads or 1,
            baseline=str(self.run.path),
            tell=self.options.tell,
        )
        self._warn_of_slow_int8(comparison, fp32[-1], self._file(best))
        row = next(row for row in comparison.rows if row.run == str(self._file(best)))
        if (line := lost_on_test_images(row, best.drop)) is not None:
            self.options.tell(Note(line, "warning"))
        from distill.report.plots import plot_comparison

        plot = plot_comparison(comparison, self.folder.path / "accuracy_latency.svg")
        made = Compressed(
            folder=self.folder.path,
            run=self.run.path,
            goal=goal,
            max_drop=self.max_drop,
            candidates=tuple(candidates),
            best=best,
            file=self._file(best),
            fp32=fp32[-1],
            comparison=comparison,
            plot=plot,
        )
        self.folder.write_result(made.to_json())
        return made

    def _warn_of_slow_int8(self, comparison: Comparison, fp32: Path, int8: Path) -> None:
        """Rounding costs time of its own: of a very small network more than it saves."""
        latency = {row.run: row.latency_b1_ms for row in comparison.rows}
        plain, rounded = latency[str(fp32)], latency[str(int8)]
        if plain and rounded and plain <= rounded:
            text = f"{fp32} is no slower than {int8} here ({plain:.2f} and {rounded:.2f} ms for one image)"
            self.options.tell(Note(text, "warning"))

    def _timed(self, candidates: Sequence[CompressionCandidate]) -> list[CompressionCandidate]:
        """The candidates with their files timed anew, in turn: times from different days are not comparable."""
        threads = self.options.timing_threads or 1
        files = {each.ratio: open_onnx(self._file(each), threads=threads) for each in candidates if each.shipped}
        (side,) = {file.image_size for file in files.values()}  # all were cut from one run
        timings = time_one_image({str(ratio): file.to_time() for ratio, file in files.items()}, side)
        return [
            replace(each, shipped=replace(each.shipped, latency_b1_ms=timings[str(each.ratio)].median_ms))
            if each.shipped
            else each
            for each in candidates
        ]

    def _file(self, candidate: CompressionCandidate) -> Path:
        assert candidate.shipped is not None
        return self.folder.exports / candidate.shipped.file

    def _plain(self, candidate: CompressionCandidate) -> Path:
        return self.folder.exports / f"{self._stem(candidate)}_fp32.onnx"

    def _exported(self, candidate: CompressionCandidate) -> Path:
        """The fp32 file of what a candidate's int8 file was made of; one that is there of the same weights stays."""
        run = self.run if candidate.ratio == 1.0 else self.folder.run_of(candidate)
        if candidate.shipped is not None and candidate.shipped.trained is not None:
            run = RunFolder(self.folder.path / candidate.shipped.trained)
        path = self._plain(candidate)
        if path.is_file():
            with suppress(DistillError):  # damaged: it is written anew
                weights = read_identity(run, device=torch.device("cpu")).weights
                if open_onnx(path).about.weights_sha256 == weights:
                    return path
        return export(run.path, out=path, overwrite=True, options=self.options).file

    def _teacher(self) -> list[Path]:
        """The teacher's run, where it is here."""
        if (place := former_teacher(self.run)) is None or not place.is_dir():
            return []
        return [place] if RunFolder(place).status == "finished" else []


def stem_of(name: str, ratio: float) -> str:
    """What a candidate's files are called: ``r18_small``, and cut to a half of it ``r18_small_to50``.

    Three digits tell any two shares that a search tries apart.
    """
    return name if ratio == 1.0 else f"{name}_to{100 * ratio:.3g}".replace(".", "_")


def cut_run(run: Path, ratio: float, definition: ChainDefinition, options: Options) -> Path:
    """Cut a run to a share of its cost and teach it again; the new run's folder is in ``options.into``."""
    limit = _limit(run, ratio, definition)
    made = prune_to(run, limit, criterion=definition.criterion, epochs=definition.epochs, options=options)
    assert made.run is not None, "it was fine-tuned"
    return made.run


def cut_cost(run: Path, ratio: float, definition: ChainDefinition, options: Options) -> Figures:
    """Parameters and multiply-accumulates that :func:`cut_run` would leave."""
    return cost_of_cut(run, _limit(run, ratio, definition), criterion=definition.criterion, options=options)


def _limit(run: Path, ratio: float, definition: ChainDefinition) -> CutLimit:
    if definition.measure == "macs":
        return CutLimit("macs", ratio)
    params = RunFolder(run).figures().params
    assert params is not None
    return CutLimit("params", round(ratio * params))


def _outcome(candidate: CompressionCandidate) -> str:
    if candidate.shipped is None:
        return f"too much: {drop_words(candidate.drop)}"
    return f"its int8 file {drop_words(candidate.drop)}, {candidate.shipped.size_mb:.2f} MB"


def lost_on_test_images(row: Row, judged: DropVerdict) -> str | None:
    """What to say of a file that is worse on the test images, which chose nothing, and by more than was allowed.

    Args:
        row: Of the file, held against the run that it came from.
        judged: What it was chosen by: its loss on validation images.
    """
    lost = -(row.baseline_difference or 0.0)
    if row.baseline_verdict != "worse" or lost <= judged.allowed:
        return None
    chosen = f"{percent(judged.allowed)} were allowed, judged by {counted(judged.n, 'validation image')}"
    advice = "" if judged.prove else " (--prove asks for more certainty)"
    return f"{row.run} loses {percent(lost)} points on the test images; {chosen}{advice}"
