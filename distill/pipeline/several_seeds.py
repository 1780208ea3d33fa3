"""One recipe with several seeds, one run each: what a mean and a spread need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.data.splits import Splits
from distill.errors import DistillError, DivergedError, UsageError
from distill.events import Note, NotesOnce
from distill.pipeline.context import Context, Options, prepare
from distill.pipeline.ensemble import with_banks
from distill.pipeline.launch import launch
from distill.pipeline.own import with_own
from distill.pipeline.provenance import PLACES, about_data, changes, foreseen, teacher_record
from distill.pipeline.source import find_teacher
from distill.pipeline.teacher import resolve_teacher
from distill.pipeline.verbs import resume_run
from distill.pipeline.worker import train_worker
from distill.recipe import Recipe, load_recipe, of_any_seed
from distill.recipe.dump import flat_settings
from distill.references import count_of
from distill.results.runs import RunResult
from distill.runs import RunFolder
from distill.runs.find import begun_runs
from distill.runs.origin import made_again
from distill.team.ranks import under_torchrun

if TYPE_CHECKING:
    from torch import nn

__all__ = ["train_seeds"]

_PLACES = {f"teacher.{place}" for place in PLACES["teacher"]}  # whether it is the same teacher its weights tell


def train_seeds(
    recipe: Recipe | str | Path,
    *,
    seeds: int,
    teacher: Any = None,
    network: nn.Module | Callable[..., nn.Module] | None = None,
    data: Any = None,
    objective: Callable[..., Any] | None = None,
    options: Options | None = None,
) -> tuple[RunResult, ...]:
    """Train one recipe with several seeds, a run each: ``train.seed`` counts up from the recipe's.

    A seed that has a finished run of this recipe, start, teacher and data is not trained again, and one that was
    stopped is gone on with. So the same call continues a series, and a larger ``seeds`` extends it. A seed whose loss
    is not finite stops no other: the error comes once all have been trained.

    Args:
        seeds: How many, 1 or more.
        teacher, network, data, objective: As :func:`distill.train_student` takes them.

    Returns:
        What each run came to, by ascending seed.

    Raises:
        DistillError: As of one run; the series can be gone on with.
        UsageError: Under torchrun, whose processes are those of one run.

    Example:
        >>> short = load_recipe("quickstart_scratch", ["name=many", "train.epochs=1"])
        >>> [each.run.name for each in train_seeds(short, seeds=2)]
        ['001', '002']
        >>> [each.run.name for each in train_seeds(short, seeds=3)]
        ['001', '002', '003']
    """
    options, count = options or Options(), count_of(seeds, "seeds")
    options = replace(options, on_event=NotesOnce(options.tell))
    if under_torchrun():
        raise UsageError("several seeds are several runs, and torchrun's processes are one", hint="--seed N, one each")
    base = with_own(load_recipe(recipe), network=network, data=data, objective=objective)
    base = with_banks(resolve_teacher(base, runs_dir=options.runs_dir, override=teacher), options)
    results: list[RunResult] = []
    splits: Splits | None = None
    series: _Series | None = None
    diverged: dict[int, DivergedError] = {}
    for number in range(count):
        train = base.train.model_copy(update={"seed": base.train.seed + number})
        context = prepare(base.model_copy(update={"train": train}), options, splits=splits)
        splits = context.splits
        series = series or _Series(context)
        if count > 1:
            options.tell(Note(f"seed {train.seed}, {number + 1} of {count}"))
        try:
            results.append(_trained(context, series))
        except DivergedError as error:
            diverged[train.seed] = error
    if diverged:
        seed, first = next(iter(diverged.items()))
        others = f" (and {len(diverged) - 1} more)" if len(diverged) > 1 else ""
        raise DivergedError(f"seed {seed}{others}: {first.message}", hint=first.hint) from first
    return tuple(results)


def _trained(context: Context, series: _Series) -> RunResult:
    """The run of this recipe and seed: the one that is there, gone on with, or a new one."""
    there = series.run_of(context)
    if there is None:
        return launch(train_worker, context)
    return resume_run(there.path, options=replace(context.options, init_from=None))


class _Series:
    """The runs that are there of one recipe, and what all of them stand on: its data and its teacher."""

    def __init__(self, context: Context) -> None:
        assert context.splits is not None, "loaded before"
        self._runs = begun_runs(context.options.runs_dir / context.recipe.name)
        self._data = about_data(context.splits)
        self._teacher = _about_teacher(context) if self._runs else None

    def run_of(self, context: Context) -> RunFolder | None:
        """The newest finished run that this one would be, with the same bytes on the same machine, else the newest.

        None where there is none; where there would be one but for its teacher, that is told.
        """
        alike = [run for run in reversed(self._runs) if self._is_it(run, context)]
        changed = [changes(run.read_info(), data=self._data, teacher=self._teacher) for run in alike]
        own = [run for run, differs in zip(alike, changed, strict=True) if not differs]
        if alike and not own:
            context.options.tell(Note(_of_another_teacher(alike[0], changed[0])))
        return next((run for run in own if run.status == "finished"), own[0] if own else None)

    def _is_it(self, run: RunFolder, context: Context) -> bool:
        """Whether it is of this recipe, seed, start and data, whatever its teacher was."""
        try:
            info, recipe = run.read_info(), run.recipe()
        except DistillError:  # damaged: told by whoever needs it
            return False
        return (
            made_again(info) is None
            and recipe.train.seed == context.recipe.train.seed
            and info.extra.get("init_from") == context.options.init_from
            and info.extra.get("device_type") == context.device.type
            and not changes(info, data=self._data, teacher=None)
            and _are_alike(recipe, context.recipe)
        )


def _of_another_teacher(run: RunFolder, changed: list[str]) -> str:
    place = (run.info.teacher or {}).get("run")
    extended = f"; --teacher {place} goes on with that series" if place else ""
    return f"{run.path} learned from another teacher ({'; '.join(changed)}){extended}"


def _about_teacher(context: Context) -> dict[str, Any] | None:
    """Of a teacher that is named, what tells it apart: its weights and network, or a bank's answers."""
    recipe, splits, options = context.recipe, context.splits, context.options
    assert splits is not None, "loaded before"
    classes = splits.dataset.classes
    teacher = find_teacher(recipe, runs_dir=options.runs_dir, device=context.device, classes=classes)
    return foreseen(recipe, splits, None) if teacher is None else teacher_record(teacher)


def _are_alike(made: Recipe, asked: Recipe) -> bool:
    """Whether both are one recipe but for the seed and where its teacher lies.

    What ``asked`` still leaves open was decided when ``made`` began.
    """
    one, other = (flat_settings(of_any_seed(each).model_dump(mode="json")) for each in (made, asked))
    settings = (one.keys() | other.keys()) - _PLACES
    return all(one.get(key) == other.get(key) for key in settings if other.get(key) != "auto") and all(
        bool(one.get(key)) == bool(other.get(key)) for key in _PLACES
    )
