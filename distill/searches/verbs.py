"""``search``: check everything, then measure, train, choose, and write a file that is within its budget."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from distill.certificate.promises import budgets_of
from distill.devices import resolve_device
from distill.errors import UsageError
from distill.pipeline.context import Options
from distill.pipeline.quantize import check_drop
from distill.recipe import Recipe, load_recipe
from distill.references import count_of, listed, run_of
from distill.results.search import SearchReport
from distill.runs import check_runs_dir
from distill.searches.bench import Bench, Runtime, Target
from distill.searches.costs import LATENCIES
from distill.searches.external_timing import check_command
from distill.searches.folder import SearchDefinition, SearchFolder, searches_dir
from distill.searches.reference import accuracy_reference, require_reference, teacher_answers
from distill.searches.rungs import MIN_EVALUATIONS
from distill.searches.search_run import SearchRun
from distill.searches.space import Space, space_of
from distill.searches.trials import ShapeEvaluator
from distill.sweeps.folder import teachers_to_keep
from distill.sweeps.trainer import Trainer
from distill.sweeps.training_cache import TrainingCache
from distill.team.stop import stopping_saves
from distill.team.watch import watching

__all__ = ["search"]

_RUNTIMES = ("torch", "onnxruntime", "onnxruntime-int8")


@watching()
def search(
    recipe: Recipe | str | Path,
    *,
    budgets: str | Sequence[str] | Mapping[str, float],
    overrides: str | Sequence[str] | Mapping[str, Any] = (),
    teacher: Any = None,
    max_drop: float = 0.01,
    prove: bool = False,
    against: Any = None,
    runtime: Runtime = "onnxruntime",
    threads: int = 1,
    measure: str | None = None,
    evaluations: int = 18,
    hours: float | None = None,
    seeds: int = 3,
    name: str | None = None,
    options: Options | None = None,
) -> SearchReport:
    """Find the best shape of a recipe's network within budgets, and write it as a file.

    Nothing over budget is trained: every candidate is counted first and, where a budget is over size or latency,
    exported untrained and timed. Candidates are trained by the recipe, from its teacher's bank. Called again with
    the same arguments, a search continues where it was stopped, and ends with the same result. The test set is read
    at the end, for the finalists.

    Args:
        budgets: ``latency_b1_ms <= 2.0`` each, or a dict: over params, gmacs, size_mb, latency_b1_ms, latency_b32_ms.
        overrides: Changes to the recipe.
        teacher: A run that replaces the recipe's teacher; several, which teach with their mean logits (then
            ``against`` is required: they are not run here); or an ONNX file.
        max_drop: The most top-1 that may be lost, a fraction, on validation images.
        prove: Judge by the upper end of the paired 95% interval instead of the estimate.
        against: The run that the loss is measured against; None: the teacher.
        runtime: What the file is to run on; latencies and sizes are measured for it.
        threads: CPU threads per operation while timing.
        measure: A command that times an ONNX file elsewhere: its ``{file}`` is replaced, and it prints JSON.
        evaluations: How many candidates to train, some of them only briefly.
        hours: Make fewer evaluations if these would take longer.
        seeds: How many seeds to train of each finalist.
        name: Name of the folder, ``searches/<name>`` beside the folder of runs; None: the recipe's.

    Returns:
        The results; ``missed`` says what the budget or the gate left unmet.

    Raises:
        RecipeError, UsageError: The search is not possible as given; nothing was trained.
        RunError: The measuring command failed.
        InterruptedRunError: Stopped; the same call continues it.

    Example:
        >>> found = search("quickstart_student", budgets={"params": 1000})
        >>> found.missed, found.nearest
        ('no shape fits: the smallest, 1 blocks, 8 channels, needs params <= 1506', {'params': 1506.0})
    """
    options = options or Options()
    check_runs_dir(options.runs_dir)
    check_drop(max_drop)
    limits = _limits(budgets)
    _check(runtime, measure, evaluations, hours, options)
    if measure is not None and not limits.keys() & LATENCIES.keys():
        raise UsageError("--measure times files, and no budget is over a latency", hint="--budget 'latency_b1_ms <= 2'")
    loaded = load_recipe(recipe, overrides)
    space = space_of(loaded)
    folder = searches_dir(options.runs_dir, name or loaded.name)
    before = folder.search_definition()
    definition = SearchDefinition(
        source=loaded.name if isinstance(recipe, Recipe) else os.fspath(recipe),
        recipe=_searched(loaded),
        search={"depths": [list(each) for each in space.depths], "widths": _widths(space)},
        budgets=limits,
        runtime=runtime,
        threads=count_of(threads, "threads"),
        measure=measure,
        evaluations=evaluations,
        hours=hours,
        seeds=count_of(seeds, "seeds"),
        max_drop=max_drop,
        prove=prove,
        against=None if against is None else run_of(against),
        teacher=teachers_to_keep(teacher),
        teachers={} if before is None else before.teachers,
    )
    trainer = Trainer(options, folder.trials, definition.teacher, dict(definition.teachers))
    base = trainer.resolved(definition.base.recipe)
    classes = trainer.splits(base).dataset.classes  # what cannot be had is told before a folder is there
    device = resolve_device(options.device)
    require_reference(definition.against, base, classes, runs_dir=options.runs_dir, device=device)
    again = shlex.join(options.command) if options.command else "the same call again"
    with stopping_saves(folder.path, hint=f"to continue: {again}"), folder.lock():
        folder.claim(replace(definition, teachers=trainer.teachers))
        return _search_run(definition, folder, trainer, space, base).run()


def _search_run(
    definition: SearchDefinition, folder: SearchFolder, trainer: Trainer, space: Space, base: Recipe
) -> SearchRun:
    options, splits = trainer.options, trainer.splits(base)
    device = resolve_device(options.device)
    teacher = teacher_answers(
        base, splits, kept=folder.path, runs_dir=options.runs_dir, device=device, tell=options.tell
    )
    reference = accuracy_reference(
        definition.against, teacher, base, splits, runs_dir=options.runs_dir, device=device, tell=options.tell
    )
    latencies = tuple(name for name in LATENCIES if name in definition.budgets)
    runtime = cast(Runtime, definition.runtime)
    exports = bool(latencies) or "size_mb" in definition.budgets
    target = Target(runtime, definition.threads, definition.measure, latencies, exports)
    own = definition.base.recipe
    trials = ShapeEvaluator(
        base=definition.base,
        space=space,
        bench=Bench(own, splits, target, folder.path.parent / "timings"),
        kept=TrainingCache(folder, trainer),
        device=device,
        tell=options.tell,
        teacher=None if teacher is None else teacher[1],
        temperature=_temperature(base),
    )
    return SearchRun(definition, folder, trials, reference, options)


def _limits(budgets: str | Sequence[str] | Mapping[str, float]) -> dict[str, float]:
    texts = [f"{key}<={limit}" for key, limit in budgets.items()] if isinstance(budgets, Mapping) else listed(budgets)
    if not texts:
        raise UsageError("no budget", hint="--budget 'latency_b1_ms <= 2', over params, gmacs, size_mb or a latency")
    return budgets_of(texts)


def _check(runtime: str, measure: str | None, evaluations: int, hours: float | None, options: Options) -> None:
    if runtime not in _RUNTIMES:
        raise UsageError(f"--runtime {runtime} is none", hint=f"one of {', '.join(_RUNTIMES)}")
    count_of(evaluations, "evaluations", least=MIN_EVALUATIONS)
    if hours is not None and not 0 < hours < math.inf:
        raise UsageError(f"--hours {hours:g} is no time", hint="--hours 8")
    if measure is not None:
        check_command(measure)
        if runtime == "torch":
            raise UsageError("--measure times ONNX files, and --runtime torch has none", hint="--runtime onnxruntime")
    if options.devices > 1:
        raise UsageError("a search trains on one device", hint="leave out --devices")


def _searched(recipe: Recipe) -> dict[str, Any]:
    """The recipe that candidates change: saved after every epoch, since rungs end between two."""
    train = recipe.train.model_copy(update={"checkpoint_epochs": 1})
    tree = recipe.model_copy(update={"train": train}).model_dump(mode="json", exclude_unset=True)
    tree.pop("search", None)
    return tree


def _widths(space: Space) -> dict[str, int]:
    return {"min": space.narrowest, "max": space.widest, "multiple": space.multiple}


def _temperature(recipe: Recipe) -> float:
    """Of the recipe's own loss, where it has one: closeness is meant as students learn it."""
    value = getattr(recipe.objective, "temperature", 1.0)
    return float(value) if isinstance(value, int | float) else 1.0
