"""What the trials of a sweep say together: the best, means over seeds, which keys mattered, and the files about it."""

from __future__ import annotations

import json
import math
import shlex
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from distill.commands import training_verb
from distill.evaluation.mean_std import mean_std
from distill.evaluation.statistics import share_interval
from distill.files import write_atomically, write_json
from distill.recipe import Recipe, dump_recipe
from distill.recipe.derived import derived_name
from distill.results.sweeps import BestTrial, GroupRow, SweepReport, TrialRow, shown_value
from distill.sweeps.folder import SweepFolder
from distill.text import counted, percent, plain

__all__ = ["best_of", "grouped", "main_effects", "publish", "unsettled", "with_interval", "write_best"]


def identity(params: Mapping[str, Any]) -> str:
    """Equal for equal choices."""
    return json.dumps(params, sort_keys=True)


def grouped(rows: Sequence[TrialRow]) -> tuple[GroupRow, ...]:
    """Trials that differ in their seed alone, in the order in which they first came."""
    return tuple(_group(members) for members in _by_choice(rows).values())


def _by_choice(rows: Sequence[TrialRow]) -> dict[str, list[TrialRow]]:
    """The trials of each combination."""
    groups: dict[str, list[TrialRow]] = {}
    for row in rows:
        groups.setdefault(identity(row.params), []).append(row)
    return groups


def _by_seed(members: Sequence[TrialRow]) -> dict[int | None, TrialRow]:
    """The finished trials of one combination, one for each seed."""
    # A search may choose the same twice: of one seed that is the same run, or another that tells nothing more.
    by_seed: dict[int | None, TrialRow] = {}
    for row in members:
        if row.status == "finished" and row.val_top1 is not None:
            by_seed.setdefault(row.seed, row)
    return by_seed


def _group(members: Sequence[TrialRow]) -> GroupRow:
    done = list(_by_seed(members).values())
    mean, std = mean_std([row.val_top1 for row in done if row.val_top1 is not None]) if done else (None, None)
    return GroupRow(
        params=members[0].params,
        seeds=len(done),
        val_top1=mean,
        val_top1_std=std,
        seconds=statistics.fmean(row.seconds or 0.0 for row in done) if done else None,
        runs=tuple(row.run for row in done if row.run is not None),
    )


def best_of(rows: Sequence[TrialRow], recipe: Path) -> BestTrial | None:
    """The combination with the best mean over the seeds that all have, or over its own where none is everyone's.

    Ties go to the first. A combination that lost seeds to failures is passed over while another has all of its own. A
    search has one seed: of its trials the best is the best.
    """
    groups = [group for group in grouped(rows) if group.val_top1 is not None]
    if not groups:
        return None
    lost = {identity(row.params) for row in rows if row.status == "failed"}
    whole = [group for group in groups if identity(group.params) not in lost]
    most = max(group.seeds for group in groups)
    pool = whole or [group for group in groups if group.seeds == most]
    trials = _by_choice(rows)
    done = {identity(group.params): _by_seed(trials[identity(group.params)]) for group in pool}
    shared = set.intersection(*(set(each) for each in done.values()))

    def mean(group: GroupRow) -> float:
        own = done[identity(group.params)]
        return statistics.fmean(row.val_top1 or 0.0 for seed, row in own.items() if seed in shared or not shared)

    best = max(pool, key=mean)
    first = next(iter(done[identity(best.params)].values()))  # and not the luckiest, whose accuracy is above the mean
    assert best.val_top1 is not None
    return BestTrial(
        best.params, best.val_top1, best.val_top1_std, best.seeds, trial=first.number, run=first.run, recipe=str(recipe)
    )


def with_interval(best: BestTrial, images: int) -> BestTrial:
    """What the accuracy of the best is worth, of so many validation images: Wilson's interval of the mean over seeds.

    Raises:
        ValueError: There are no images.
    """
    found = share_interval(round(best.val_top1 * images), images)
    return replace(best, val_top1_low=found.low, val_top1_high=found.high)


def unsettled(best: BestTrial, rows: Sequence[TrialRow], images: int) -> str | None:
    """That other choices may be as good as the best, where their accuracies lie in its interval; None where none do.

    They may lie above it: of seeds that not all have, or beside a choice that lost a seed, the best is not the highest.
    """
    means = [group.val_top1 for group in grouped(rows) if group.val_top1 is not None and group.params != best.params]
    if best.val_top1_low is None or best.val_top1_high is None:
        return None
    close = sum(best.val_top1_low <= mean for mean in means)
    higher = any(mean > best.val_top1_high for mean in means)
    if not close:
        return None
    interval = f"{percent(best.val_top1_low)} to {percent(best.val_top1_high)} %"
    return (
        f"which is best is not settled: {close} of {counted(len(means), 'other choice')} "
        f"lie{'s' if close == 1 else ''} in {'or above ' if higher else ''}the best one's 95% interval, {interval} "
        f"(Wilson's, of {images:,} validation images)"
    )


def main_effects(rows: Sequence[TrialRow]) -> dict[str, float] | None:
    """Of a full grid, the share of all variance that each key explains beyond chance (epsilon squared, Kelley 1935).

    The means of a key's values differ by noise alone, too: so much as the rest of the grid lets expect is taken off
    (PNAS 21, 554). None where a trial or a combination is missing, fewer than two keys were varied, nothing differs, or
    what is left over, interaction and noise, has fewer than two degrees of freedom to be told by.
    """
    done = [row for row in rows if row.status == "finished" and row.val_top1 is not None]
    keys = [key for key in (rows[0].params if rows else {}) if len({identity({key: r.params[key]}) for r in rows}) > 1]
    if len(done) < len(rows) or len(keys) < 2 or not _is_full(rows):
        return None
    total = statistics.pvariance([row.val_top1 or 0.0 for row in done])
    freedom = {key: len({identity({key: row.params[key]}) for row in done}) - 1 for key in keys}
    left = len(done) - 1 - sum(freedom.values())
    if total == 0 or left < 2:
        return None
    between = {key: _between(done, key) for key in keys}
    noise = max(total - sum(between.values()), 0.0) / left
    return {key: max(between[key] - freedom[key] * noise, 0.0) / total for key in keys}


def _is_full(rows: Sequence[TrialRow]) -> bool:
    """Whether every combination of the keys' values is there, equally often."""
    times = Counter(identity(row.params) for row in rows)
    values = ({identity({key: row.params[key]}) for row in rows} for key in rows[0].params)
    return len(times) == math.prod(map(len, values)) and len(set(times.values())) == 1


def _between(rows: Sequence[TrialRow], key: str) -> float:
    """The variance of the means of one key's values, each weighted by its trials."""
    by_value: dict[str, list[float]] = {}
    for row in rows:
        by_value.setdefault(identity({key: row.params[key]}), []).append(row.val_top1 or 0.0)
    return statistics.pvariance([mean for tops in by_value.values() for mean in [statistics.fmean(tops)] * len(tops)])


def write_best(best: BestTrial, recipe: Recipe, *, name: str, trials: int, commands: Sequence[Sequence[str]]) -> None:
    """Write the best trial's recipe, with a header that says how it was found; its runs are not those of the recipe."""
    recipe = recipe.model_copy(update={"name": derived_name(recipe.name, "_best")})
    over = "" if best.seeds < 2 else f" (mean of {best.seeds} seeds)"
    chosen = ", ".join(f"{key}={shown_value(value)}" for key, value in best.params.items())
    lines = [
        f"Best of {trials} trials of sweep {name}: validation top-1 {percent(best.val_top1)} %{over}.",
        "The test set had no say in the choice: measure this recipe on it once, at the end.",
        f"Chosen: {chosen}" if chosen else "",
        *(f"Found by: {shlex.join(command)}" for command in commands),
        f"Its run: {best.run}" if best.run else "",
        f"Run:    distill {training_verb(recipe.role)} --recipe {shlex.quote(best.recipe)}",
    ]
    header = "".join(f"# {plain(line)}\n" for line in lines if line)
    write_atomically(Path(best.recipe), header + dump_recipe(recipe))


def publish(report: SweepReport, folder: SweepFolder, *, log_keys: Sequence[str] = ()) -> SweepReport:
    """Draw the plot and write result.json; returns the report that knows where the plot is."""
    from distill.report.sweep_plots import plot_sweep  # matplotlib, at the end of a sweep alone

    plot = plot_sweep(report, folder.path / "trials.svg", log_keys=log_keys)
    report = replace(report, plot=None if plot is None else str(plot))
    write_json(folder.path / "result.json", report.to_json())
    return report
