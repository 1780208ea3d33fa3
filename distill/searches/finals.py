"""The end of a search: seeds of the best beside both baselines, and which of them to take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from distill.evaluation.mean_std import mean_std
from distill.evaluation.statistics import LEVEL, PairedTest, SeedOutcomes, compare_runs
from distill.report.verdict import METHODS
from distill.results.search import Finalist, Tried
from distill.runs import RunFolder
from distill.searches.explore import Explored, ShapeCandidate
from distill.searches.space import Shape
from distill.searches.trials import ShapeEvaluator

__all__ = ["Final", "advice", "choose", "finalist_rows", "finalist_shapes", "finals", "tried_rows"]


_BASELINES = {"uniform": "uniform width within the budget", "random": "random search with the same epochs"}


@dataclass(frozen=True)
class Final:
    """A shape with its seeds.

    Attributes:
        kinds: What it stands for: ``search``, ``uniform``, ``random``.
        runs: One for each seed that could be trained.
        seeds: Of those runs, in rising order, counted from the recipe's own, which is 0.
        right: ``(seeds, N)`` bool, of validation images.
        best_of: By those images it was chosen among so many, before its further seeds.
    """

    kinds: tuple[str, ...]
    candidate: ShapeCandidate
    runs: tuple[RunFolder, ...]
    seeds: tuple[int, ...]
    right: np.ndarray
    best_of: int = 1

    @property
    def top1(self) -> float:
        """Mean validation top-1."""
        return float(self.right.mean())


def finals(explored: Explored, trials: ShapeEvaluator, seeds: int) -> list[Final]:
    """The search's best, the uniform shape, and the best of the random ones, each with all of its seeds."""
    kinds: dict[Shape, list[str]] = {}
    by_shape: dict[Shape, ShapeCandidate] = {}
    for kind, each in _named_candidates(explored):
        by_shape.setdefault(each.shape, each)
        kinds.setdefault(each.shape, []).append(kind)
    found = [_final(tuple(kinds[shape]), each, trials, seeds) for shape, each in by_shape.items()]
    of = max(len(explored.randoms), 1)
    return [replace(each, best_of=of if each.kinds == ("random",) else 1) for each in found if each is not None]


def finalist_shapes(explored: Explored) -> list[Shape]:
    """Those that :func:`finals` trains, each once."""
    return list(dict.fromkeys(each.shape for _, each in _named_candidates(explored)))


def _named_candidates(explored: Explored) -> list[tuple[str, ShapeCandidate]]:
    named = [("search", each) for each in explored.best] + [("uniform", explored.uniform)]
    return named + [("random", each) for each in explored.randoms[:1]]


def _final(kinds: tuple[str, ...], candidate: ShapeCandidate, trials: ShapeEvaluator, seeds: int) -> Final | None:
    """None where no seed of it can be trained."""
    recipe = trials.recipe_of(candidate.shape)
    runs = dict[int, RunFolder]()
    for number in range(seeds):
        seed = trials.seed_of(number)
        if trials.score(candidate.shape, recipe.train.epochs, seed) is not None:
            run = trials.run_of(candidate.shape, seed)
            assert run is not None, "it was scored"
            runs[number] = run
    if not runs:
        return None
    return Final(
        kinds, candidate, tuple(runs.values()), tuple(runs), np.stack([trials.right(run) for run in runs.values()])
    )


def difference(ours: Final, theirs: Final, *, best_of: int = 1) -> PairedTest:
    """By the seeds that both have, else by those that each has; of one run each, by image.

    Args:
        best_of: ``ours`` is the best of so many by the answers that judge it: the interval is as wide as lets all of
            them be right together in 95 of 100 searches (Bonferroni).
    """
    level = 1 - (1 - LEVEL) / best_of
    return compare_runs(SeedOutcomes(ours.seeds, ours.right), SeedOutcomes(theirs.seeds, theirs.right), level=level)


def _named(found: Sequence[Final], kind: str) -> Final | None:
    named = [each for each in found if kind in each.kinds]
    return max(named, key=lambda each: each.top1, default=None)


def _chosen_from(found: Sequence[Final], other: Final) -> int:
    """How many finalists of the search its best was chosen from; the one that it is compared with is none of them."""
    return max(1, sum("search" in each.kinds and each is not other for each in found))


def choose(found: Sequence[Final]) -> tuple[Final, bool | None]:
    """What to take, and whether the search helped: whether its best is better than the uniform shape beyond chance.

    None: one of the two could not be trained, so nobody knows. The best of the random ones is taken where it is better
    than either beyond chance, and then the search did not help.
    """
    best, uniform = _named(found, "search"), _named(found, "uniform")
    if best is None or uniform is None:
        return best or uniform or found[0], None
    helped = best is not uniform and difference(best, uniform, best_of=_chosen_from(found, uniform)).verdict == "better"
    taken, chance = best if helped else uniform, _named(found, "random")
    if chance is not None and difference(chance, taken, best_of=chance.best_of).verdict == "better":
        return chance, False
    return taken, helped


def advice(found: Sequence[Final]) -> tuple[str, ...]:
    """The search's best against both baselines, in sentences."""
    best = _named(found, "search")
    if best is None:
        return ("no candidate of the search could be trained to its end",)
    lines = []
    for kind, what in _BASELINES.items():
        other = _named(found, kind)
        if other is None:
            lines.append(f"there is no shape of {what} to compare with")
        elif other is best:
            lines.append(f"the best shape is that of {what}")
        else:
            lines.append(_against(best, other, what, _chosen_from(found, other)))
    taken, helped = choose(found)
    if helped is False:
        which = "uniform one" if "uniform" in taken.kinds else "best of the random ones, which is better"
        lines.append(f"search did not help: take the {which}")
    return tuple(lines)


def _against(best: Final, other: Final, what: str, best_of: int) -> str:
    test = difference(best, other, best_of=best_of)
    points = 100 * test.difference.estimate
    bounds = f"[{100 * test.difference.low:+.2f}, {100 * test.difference.high:+.2f}]"
    words = {"better": "better", "worse": "worse", "cannot tell": "no difference that can be told"}[test.verdict]
    chosen = f", the best of {best_of}" if best_of > 1 else ""
    return f"against {what}: {points:+.2f} points {bounds}, {METHODS[test.method]}, n = {test.n}{chosen}: {words}"


# Rows


def tried_rows(explored: Explored, trials: ShapeEvaluator) -> tuple[Tried, ...]:
    """Everything that was trained, the furthest and best first."""
    every = [*explored.candidates, *explored.randoms]
    rows = [_tried(each, trials) for each in every]
    return tuple(sorted(rows, key=lambda row: (-row.epochs, -(row.val_top1 or 0.0))))


def _tried(candidate: ShapeCandidate, trials: ShapeEvaluator) -> Tried:
    score = candidate.scores.get(candidate.epochs)
    return Tried(
        origin=candidate.origin,
        shape=str(candidate.shape),
        params=trials.params_of(candidate.shape),
        costs=candidate.fitted.costs.to_json(),
        share=candidate.fitted.share,
        epochs=candidate.epochs,
        val_top1=None if score is None else score.val_top1,
        kl=None if score is None else score.kl,
    )


def finalist_rows(found: Sequence[Final], taken: Final, trials: ShapeEvaluator) -> tuple[Finalist, ...]:
    """The finalists, the best by validation first. Here, and only here, a search reads the test set."""
    rows = [_finalist(each, each is taken, trials) for each in found]
    return tuple(sorted(rows, key=lambda row: -row.val_top1))


def _finalist(final: Final, chosen: bool, trials: ShapeEvaluator) -> Finalist:
    val = mean_std([float(row.mean()) for row in final.right])
    test = mean_std([float(trials.right(run, "test").mean()) for run in final.runs])
    shape, fitted = final.candidate.shape, final.candidate.fitted
    return Finalist(
        kinds=final.kinds,
        shape=str(shape),
        params=trials.params_of(shape),
        costs=fitted.costs.to_json(),
        share=fitted.share,
        seeds=len(final.runs),
        val_top1=val[0],
        val_top1_std=val[1],
        test_top1=test[0],
        test_top1_std=test[1],
        runs=tuple(str(run.path) for run in final.runs),
        chosen=chosen,
    )
