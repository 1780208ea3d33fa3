"""The file of a search: written of the shape that was taken, measured again, cut where it is over a budget, judged.

A shape is timed untrained. What ships is trained, perhaps rounded by another scheme: where that takes more than a
budget allows, channels are cut until it does not, and what is left is trained on from the same bank.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from distill.compression.cut_limit import CutLimit
from distill.errors import DivergedError, GateMissedError, MissingError, UsageError
from distill.evaluation.assess import assess
from distill.evaluation.drop import DropVerdict, judge_drop
from distill.events import Note
from distill.files import read_json, sha256_file, write_json
from distill.models.onnx_open import open_onnx
from distill.pipeline.context import Options
from distill.pipeline.export import export
from distill.pipeline.prune import prune_to
from distill.pipeline.quantize import quantize
from distill.pipeline.resumable import resumed_or
from distill.recipe import Recipe
from distill.runs import RunFolder
from distill.searches.bench import Runtime
from distill.searches.costs import LATENCIES, Budgets, Costs
from distill.searches.finals import Final
from distill.searches.reference import AccuracyReference
from distill.text import percent

__all__ = ["Excess", "PrunedRun", "Shipped", "Shipping", "ship"]

_INT8_DROP = 0.003  # of top-1 that rounding alone may cost: the rest of what may be lost is the shape's
_MAX_NOISE = 0.1  # a budget means something on a busy machine, too
_NOISE = 0.03  # by which a latency may be over its budget: as much as two timings of one network differ by
_CUTS = 3
_CUT_WORDS = {"params": "parameters", "macs": "multiply-accumulates"}
_SAFE = 0.97  # what a cut aims at: timings are noisy, and widths come in multiples


@dataclass(frozen=True)
class PrunedRun:
    """A run with fewer channels, and why there is one, in a sentence."""

    run: RunFolder
    why: str


@dataclass(frozen=True)
class Excess:
    """The budget that a file is furthest over, and how many times it takes that."""

    quantity: str
    times: float


@dataclass(frozen=True)
class Shipped:
    """What ships, and what it lost on validation images; no file where int8 lost too much.

    Attributes:
        run: The run whose weights the file has: pruned, or of quantisation-aware training, where that was needed.
        cut: How it was brought within the budgets; None: it was.
        over: Which budget it is over all the same.
    """

    file: Path | None
    drop: DropVerdict | None
    run: Path | None = None
    why: str | None = None
    cut: PrunedRun | None = None
    over: Excess | None = None


@dataclass(frozen=True)
class Shipping:
    """What a file has to keep to.

    Attributes:
        into: The folder of ``best.onnx``.
        measured: What a file of a recipe's network costs, in each quantity that a file can change.
        noise: How far apart two timings of one network were, as a share.
        multiple: Of the widths that a cut leaves.
    """

    into: Path
    runtime: Runtime
    budgets: Budgets
    measured: Callable[[Path, Recipe], Costs | None]
    noise: float
    multiple: int
    max_drop: float
    prove: bool
    options: Options

    @property
    def file(self) -> Path:
        """What ships."""
        return self.into / "best.onnx"

    def excess(self, recipe: Recipe) -> Excess | None:
        """How the file is over a budget; None where all hold."""
        costs = self.measured(self.file, recipe)
        if costs is None:
            return None
        used = {name: costs.of(name) / limit for name, limit in self.budgets.items()}
        over = {name: share for name, share in used.items() if share > 1.0 + self._slack(name)}
        name = max(over, key=lambda each: over[each], default=None)
        return None if name is None else Excess(name, over[name])

    def _slack(self, quantity: str) -> float:
        return min(max(self.noise, _NOISE), _MAX_NOISE) if quantity in LATENCIES else 0.0


def ship(final: Final, reference: AccuracyReference, shipping: Shipping) -> Shipped:
    """Write ``best.onnx`` of the run with the recipe's own seed, bring it within the budgets, and judge it.

    Not of the best seed: choosing that would bias its validation accuracy. Where the recipe's own seed could not be
    trained, the next one ships, which is told.
    """
    run, path, tell = final.runs[0], shipping.file, shipping.options.tell
    if final.seeds[0] != 0:
        tell(Note(f"the recipe's own seed could not be trained: {path} is of {run.path}", "warning"))
    held, made, cuts = _Held(shipping.into / "held.json"), list[Path](), list[tuple[RunFolder, Excess]]()
    over: Excess | None
    while True:
        source = cuts[-1][0] if cuts else run
        try:
            made.append(_written(source, shipping))
        except GateMissedError as missed:
            if not made:
                _clear(shipping)
                return Shipped(None, None, why=missed.message)
            tell(Note(f"{source.path}: {missed.message}; {path} stays what it was", "warning"))
            over = cuts.pop()[1]
            break
        over = held.decided(path, partial(shipping.excess, source.recipe()))
        if over is None or len(cuts) == _CUTS:
            break
        try:
            cuts.append((_cut(run, [*(each for _, each in cuts), over], shipping), over))
        except (UsageError, MissingError, DivergedError) as error:  # the file is there, and judged as it is
            hint = f" ({error.hint})" if error.hint else ""
            tell(Note(f"{path} cannot be cut: {error.message}{hint}", "warning"))
            break
        tell(Note(f"{path}: {_why(cuts)}"))
    found = assess(open_onnx(path), split="val", tell=tell)
    drop = judge_drop(found.correct, reference.right, allowed=shipping.max_drop, prove=shipping.prove)
    cut = PrunedRun(cuts[-1][0], _why(cuts)) if cuts else None
    return Shipped(path, drop, made[-1], cut=cut, over=over)


@dataclass(frozen=True)
class _Held:
    """What was found of each file, by its sha256, once: a timing repeated is another number.

    A search that goes on then takes the cuts that are there, and one that has ended stays as it was. A file that is
    another one, as for another loss that is allowed, is measured.
    """

    path: Path

    def decided(self, file: Path, measure: Callable[[], Excess | None]) -> Excess | None:
        """Of a file."""
        kept, key = read_json(self.path) if self.path.is_file() else {}, sha256_file(file)
        if key not in kept:
            over = measure()
            kept[key] = None if over is None else asdict(over)
            write_json(self.path, kept)
        return None if kept[key] is None else Excess(**kept[key])


def _remaining_fraction(excesses: Sequence[Excess]) -> float:
    """Of the shape's own cost that may stay."""
    return math.prod(_SAFE / each.times for each in excesses)


def _why(cuts: Sequence[tuple[RunFolder, Excess]]) -> str:
    words, excesses = list[str](), [each for _, each in cuts]
    for number, each in enumerate(excesses, 1):
        took = "that" if number > 1 else "trained, its file"
        took += f" took {percent(each.times, 1)}% of the budget of {each.quantity}"
        words.append(
            f"{took}: cut to {percent(_remaining_fraction(excesses[:number]), 1)}% of its {_CUT_WORDS[_cut_of(each)]}"
        )
    return "; ".join(words) + ", and trained on"


def _written(run: RunFolder, shipping: Shipping) -> Path:
    """The run whose weights the file has."""
    options = replace(shipping.options, into=shipping.into / "qat")
    if shipping.runtime != "onnxruntime-int8":
        return export(run.path, out=shipping.file, overwrite=True, options=options).run
    most = min(_INT8_DROP, shipping.max_drop)
    made = quantize(run.path, max_drop=most, out=shipping.file, overwrite=True, options=options)
    return made.trained or run.path


def _cut(run: RunFolder, excesses: Sequence[Excess], shipping: Shipping) -> RunFolder:
    """A run with fewer channels, trained to its end; gone on with where it was stopped."""
    quantity, share = _cut_of(excesses[-1]), _remaining_fraction(excesses)
    into = shipping.into / "cut" / f"{run.path.name}-{share:.4f}"  # another file may be over by more

    def begin(options: Options) -> Path:
        params = run.figures().params
        assert params is not None
        limit = CutLimit(quantity, round(share * params) if quantity == "params" else round(share, 4))
        made = prune_to(run.path, limit, multiple=shipping.multiple, options=options)
        assert made.run is not None, "it was trained on"
        return made.run

    return resumed_or(begin, into, shipping.options)


def _cut_of(over: Excess) -> Literal["macs", "params"]:
    """What is cut to bring it down."""
    return "params" if over.quantity in ("params", "size_mb") else "macs"


def _clear(shipping: Shipping) -> None:
    """A file that an earlier call left is not what this one found."""
    for path in (shipping.file, shipping.into / "certificate.json"):
        if path.exists():
            path.unlink()
            shipping.options.tell(Note(f"removed {path}: it was made for another goal"))
