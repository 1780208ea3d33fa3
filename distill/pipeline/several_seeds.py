"""One recipe with several seeds, one run each: what a mean and a spread need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.data.splits import Splits
from distill.errors import DistillError, UsageError
from distill.events import Note, NotesOnce
from distill.pipeline.context import Context, Options, prepare
from distill.pipeline.ensemble import with_banks
from distill.pipeline.launch import launch
from distill.pipeline.own import with_own
from distill.pipeline.provenance import about_data, changes
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
    stopped is gone on with. So the same call continues a series, and a larger ``seeds`` extends it.

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
    for number in range(count):
        train = base.train.model_copy(update={"seed": base.train.seed + number})
        context = prepare(base.model_copy(update={"train": train}), options, splits=splits)
        splits = context.splits
        if count > 1:
            options.tell(Note(f"seed {train.seed}, {number + 1} of {count}"))
        results.append(_trained(context))
    return tuple(results)


def _trained(context: Context) -> RunResult:
    """The run of this recipe and seed: the one that is there, gone on with, or a new one."""
    there = _begun(context)
    if there is None:
        return launch(train_worker, context)
    return resume_run(there.path, options=replace(context.options, init_from=None))


def _begun(context: Context) -> RunFolder | None:
    """The newest run that this one would be, with the same bytes on the same machine; None where there is none."""
    folder = context.options.runs_dir / context.recipe.name
    return next((run for run in reversed(begun_runs(folder)) if _is_it(run, context)), None)


def _is_it(run: RunFolder, context: Context) -> bool:
    try:
        info, recipe = run.read_info(), run.recipe()
    except DistillError:  # damaged: told by whoever needs it
        return False
    assert context.splits is not None, "loaded before"
    return (
        made_again(info) is None
        and recipe.train.seed == context.recipe.train.seed
        and info.extra.get("init_from") == context.options.init_from
        and info.extra.get("device_type") == context.device.type
        and not changes(info, data=about_data(context.splits), teacher=None)
        and _are_alike(recipe, context.recipe)
    )


def _are_alike(made: Recipe, asked: Recipe) -> bool:
    """Whether both are one recipe but for the seed; what ``asked`` still leaves open was decided when it began."""
    if made.teacher is not None and made.teacher.run is not None:
        wanted = None if asked.teacher is None else asked.teacher.run
        if wanted is None or Path(made.teacher.run).resolve() != Path(wanted).resolve():
            return False
    one, other = (flat_settings(of_any_seed(each).model_dump(mode="json")) for each in (made, asked))
    return all(one.get(key) == other.get(key) for key in one.keys() | other.keys() if other.get(key) != "auto")
