"""``sweep`` and ``resume_sweep``: check everything, then train trial after trial."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from distill.code import needs_allow_code
from distill.errors import DistillError, InterruptedRunError, RunError, Terminated, TerminatedRunError, UsageError
from distill.events import Note, Tell
from distill.files import relative
from distill.pipeline.context import Options
from distill.pipeline.teacher import asks_none
from distill.recipe import Recipe, load_recipe
from distill.references import check_name, count_of, listed
from distill.results.sweeps import BestTrial, SweepReport, TrialRow
from distill.runs import RunFolder, check_runs_dir
from distill.sweeps.folder import (
    SweepDefinition,
    SweepFolder,
    check_same,
    find_sweep,
    redacted,
    sweeps_dir,
    teachers_to_keep,
)
from distill.sweeps.grid import earlier_trials, run_grid
from distill.sweeps.outcome import best_of, grouped, main_effects, publish, unsettled, with_interval, write_best
from distill.sweeps.plan import (
    Trial,
    check_networks,
    check_trials,
    corner_trials,
    grid_trials,
    trial_key,
    with_seeds,
)
from distill.sweeps.space import Axis, Variable, parse_grid, parse_search
from distill.sweeps.storage import open_study, require_optuna
from distill.sweeps.study import StudyRunner
from distill.sweeps.trainer import Trainer

__all__ = ["resume_sweep", "sweep"]

#: Settings of ``data`` that decide which images validate.
_JUDGES = tuple(
    f"data.{name}"
    for name in ("name", "root", "code", "options", "limit", "split_seed", "val_fraction", "test_fraction")
)


def sweep(
    recipe: Recipe | str | Path,
    *,
    overrides: str | Sequence[str] | Mapping[str, Any] = (),
    teacher: Any = None,
    grid: str | Sequence[str] = (),
    search: str | Sequence[str] = (),
    trials: int | None = None,
    seeds: int = 1,
    storage: str | None = None,
    prune: bool = True,
    name: str | None = None,
    options: Options | None = None,
) -> SweepReport:
    """Train one recipe many times and keep the best by validation accuracy; the test set plays no part.

    Each trial is a run folder like any other, in ``sweeps/<name>/trials``, beside the folder of runs: a run name
    never refers to one. Called again with the same arguments, a sweep continues where it was stopped; with other values
    of the same keys, it trains those, and earlier trials stay in its table and may be its best.

    Args:
        overrides: Changes to the recipe, for all trials.
        teacher: A run that replaces the recipe's teacher; several, which teach with their mean logits; or an ONNX file.
        grid: ``key=value,value`` each; every combination is a trial.
        search: ``key=LOW:HIGH``, ``key=LOW:HIGH:log`` or ``key=[a, b]`` each; Optuna chooses.
        trials: How many trials of ``search``, over all machines that share the study.
        seeds: Train each combination of a grid with this many seeds, counting up from the recipe's.
        storage: Where machines share the study: ``journal:FILE``, or Optuna's storage URL; by default an SQLite file.
        prune: End trials of a search early that do worse than the median of the others at the same epoch.
        name: The sweep's name; by default the recipe's.

    Raises:
        RecipeError: A trial would not be a valid recipe; none was started.
        UsageError: Conflicting options, no validation split, or another sweep of that name.
        MissingError: Optuna, data or a device is missing.
        InterruptedRunError: Stopped; the hint says how to continue.

    Example:
        >>> report = sweep("quickstart_student", overrides=["train.epochs=1"], grid=["objective.temperature=2,4"])
        >>> [trial.params for trial in report.trials]
        [{'objective.temperature': 2}, {'objective.temperature': 4}]
    """
    options, seeds = options or Options(), count_of(seeds, "seeds")
    trials = None if trials is None else count_of(trials, "trials")
    loaded = load_recipe(recipe, overrides)
    source = recipe.name if isinstance(recipe, Recipe) else os.fspath(recipe)
    definition = SweepDefinition(
        source=source,
        recipe=loaded.model_dump(mode="json", exclude_unset=True),
        grid=listed(grid),
        search=listed(search),
        trials=trials,
        seeds=seeds,
        storage=storage,
        prune=prune,
        teacher=teachers_to_keep(teacher),
        device=options.device,
        threads=options.threads,
    )
    folder = SweepFolder(sweeps_dir(options.runs_dir) / check_name(name or loaded.name, "a sweep"))
    return _carry_out(definition, folder, options)


def resume_sweep(
    reference: str | Path, *, trials: int | None = None, storage: str | None = None, options: Options | None = None
) -> SweepReport:
    """Resume a sweep, by its folder or its name: finished trials are kept, stopped ones continue.

    Args:
        trials: A new number of trials for a search.
        storage: The study's URL again, if it contains a password, which is never stored.

    Raises:
        RunError: There is no such sweep.
        UsageError: Either was given, and the sweep is a grid.

    Example:
        >>> [trial.status for trial in resume_sweep("quickstart_student").trials]
        ['finished', 'finished']
    """
    options = options or Options()
    folder = find_sweep(reference, options.runs_dir)
    definition = folder.definition()
    assert definition is not None
    given = [option for option, value in (("--trials", trials), ("--storage", storage)) if value is not None]
    if given and not definition.search:
        raise UsageError(
            f"{folder.subject} is a grid and takes no {', '.join(given)}",
            hint="to widen it, repeat its first command with more values or --seeds, without --resume",
        )
    wanted = definition.trials if trials is None else count_of(trials, "trials")
    definition = replace(definition, trials=wanted, storage=storage or definition.storage)
    if definition.storage is not None and "***" in definition.storage:
        raise UsageError(f"the password of {definition.storage} is not kept", hint="give the URL again: --storage URL")
    options = replace(
        options, device=options.device or definition.device, threads=options.threads or definition.threads,
        runs_dir=Path(os.path.normpath(folder.path / definition.runs)),
    )  # fmt: skip
    return _carry_out(definition, folder, options)


def _carry_out(definition: SweepDefinition, folder: SweepFolder, options: Options) -> SweepReport:
    check_runs_dir(options.runs_dir)
    _check_request(definition, options)
    planned, recipes = _planned(definition, options.tell)
    before = folder.definition()
    if before is not None:
        check_same(before, definition, folder.path)
        definition = replace(definition, worker=before.worker, teachers=before.teachers, commands=before.commands)
    options = replace(options, command=tuple(map(redacted, options.command)))
    if _asks_for_more(definition, before) and options.command and options.command not in definition.commands:
        definition = replace(definition, commands=(*definition.commands, options.command))
    trainer = Trainer(options, folder.trials, definition.teacher, dict(definition.teachers))
    check_networks(recipes)
    _check_shared(definition, trainer, recipes)
    definition = replace(definition, teachers=trainer.teachers, runs=relative(options.runs_dir, folder.path))
    with _hinting(folder, definition), folder.lock():
        folder.write_definition(definition)
        if definition.search:
            return _run_search(definition, folder, trainer)
        return _run_grid(definition, folder, trainer, planned, recipes)


def _asks_for_more(definition: SweepDefinition, before: SweepDefinition | None) -> bool:
    """Whether trials are asked for that were not before: what they find is found by this command, too."""
    if before is None:
        return True
    if definition.search:
        return (definition.trials or 0) > (before.trials or 0)
    return (definition.grid, definition.seeds) != (before.grid, before.seeds)


def _check_request(definition: SweepDefinition, options: Options) -> None:
    if definition.grid and definition.search:
        raise UsageError("--grid and --search exclude each other", hint="a grid tries all, a search chooses")
    if bool(definition.search) != bool(definition.trials):
        raise UsageError("--search and --trials go together", hint="--trials 50 --search optim.lr=1e-4:1e-1:log")
    if definition.search and definition.seeds > 1:
        raise UsageError(
            "--seeds goes with --grid: a search spends its runs on new choices",
            hint="then repeat the best one: distill sweep --recipe sweeps/NAME/best.yaml --seeds 3 --name NAME-seeds",
        )
    if definition.storage and not definition.search:
        raise UsageError("--storage goes with --search: a grid has no study", hint="leave out --storage")
    if not definition.grid and not definition.search and definition.seeds == 1:
        raise UsageError("nothing to vary", hint="--grid optim.lr=0.01,0.1, --seeds 3, or --search with --trials")
    if options.devices > 1:
        raise UsageError("a sweep trains on one device", hint="start it once a device, with one --storage for all")


def _planned(definition: SweepDefinition, tell: Tell) -> tuple[list[Trial], list[Recipe]]:
    """The trials of a grid, or those at the corners of a search, and their recipes: every mistake is found here."""
    base = definition.base
    variables: Sequence[Variable]
    if definition.search:
        require_optuna()
        variables, option = parse_search(definition.search), "--search"
        planned = corner_trials(variables)
    else:
        axes, option = parse_grid(definition.grid), "--grid"
        variables = axes
        planned = grid_trials(base, axes, definition.seeds)
    for each in variables:
        if isinstance(each, Axis) and each.repeated:
            again = ", ".join(dict.fromkeys(each.repeated))
            tell(Note(f"{option} {each.key}: {again} is listed more than once, and taken once"))
    return planned, check_trials(base, planned, option=option)


def _check_shared(definition: SweepDefinition, trainer: Trainer, recipes: Sequence[Recipe]) -> None:
    """What all trials need: their teachers, and data with a validation split."""
    if definition.teacher:
        if all(recipe.teacher is None for recipe in recipes):
            raise asks_none(recipes[0], definition.teacher)
        if any(text.startswith("teacher.") for text in (*definition.grid, *definition.search)):
            raise UsageError("--teacher and a swept teacher exclude each other", hint="leave out --teacher")
    resolved = [trainer.resolved(recipe) for recipe in recipes]
    trainer.splits(resolved[0])
    keys = [text.partition("=")[0].strip() for text in (*definition.grid, *definition.search)]
    if decide := [key for key in keys if key == "data" or key.startswith(_JUDGES)]:
        trainer.options.tell(
            Note(
                f"{', '.join(decide)} decides which validation images a trial is judged by: accuracies on different "
                "images do not compare, and the best of them may have had the easier ones",
                "warning",
            )
        )


@contextmanager
def _hinting(folder: SweepFolder, definition: SweepDefinition) -> Iterator[None]:
    """An interrupted sweep says how to go on with all of it, not with the one run it was at."""
    leave = " --allow-code" if needs_allow_code(definition.base.recipe.own_code) else ""
    hint = f"to continue: distill sweep --resume {shlex.quote(str(folder.path))}{leave}"
    try:
        yield
    except Terminated:
        raise TerminatedRunError(f"terminated; {folder.path} is saved", hint=hint) from None
    except KeyboardInterrupt:
        raise InterruptedRunError(f"interrupted; {folder.path} is saved", hint=hint) from None
    except InterruptedRunError:
        raise InterruptedRunError(f"interrupted; {folder.path} and its runs are saved", hint=hint) from None
    except TerminatedRunError:
        raise TerminatedRunError(f"terminated; {folder.path} and its runs are saved", hint=hint) from None


def _run_grid(
    definition: SweepDefinition,
    folder: SweepFolder,
    trainer: Trainer,
    asked: Sequence[Trial],
    recipes: Sequence[Recipe],
) -> SweepReport:
    base = definition.base
    earlier = earlier_trials(folder, trainer, base, set(map(trial_key, recipes)))
    trials = with_seeds([*asked, *earlier], base)
    rows = run_grid(
        folder, trainer, trials, [*recipes, *(base.recipe_of(trial) for trial in earlier)], asked=len(asked)
    )
    effects = main_effects(rows)
    report = _report(folder, "grid", rows)
    report = replace(
        report,
        groups=grouped(rows) if any(trial.seed is not None for trial in trials) else (),
        importances=effects,
        importance_method=None if effects is None else "main effects beyond chance",
    )
    chosen = None if report.best is None else trials[report.best.trial]
    return _published(definition, folder, trainer, report, None if chosen is None else Trial(chosen.params))


def _run_search(definition: SweepDefinition, folder: SweepFolder, trainer: Trainer) -> SweepReport:
    variables = parse_search(definition.search)
    assert definition.trials is not None, "checked before"
    with open_study(folder, definition) as study:
        search = StudyRunner(
            study,
            folder,
            trainer,
            definition.base,
            variables,
            trials=definition.trials,
            prune=definition.prune,
            worker=definition.worker,
            shared=definition.storage is not None,
        )
        report = _report(folder, "search", search.run())
        shares = search.importances()
        running = sum(row.status == "running" for row in report.trials)
        report = replace(
            report,
            importances=shares,
            importance_method=None if shares is None else "fANOVA",
            storage=redacted(definition.storage) if definition.storage else str(folder.path / "study.db"),
            notes=(*report.notes, *([f"{running} trials are still at work on other machines"] if running else [])),
        )
        chosen = None if report.best is None else search.choices_of(report.best.trial)
        return _published(definition, folder, trainer, report, chosen, log_keys=search.log_keys)


def _report(folder: SweepFolder, kind: Literal["grid", "search"], rows: Sequence[TrialRow]) -> SweepReport:
    best = best_of(rows, folder.path / "best.yaml")
    notes: tuple[str, ...] = ()
    if best is not None and (images := _val_images(best)):
        best = with_interval(best, images)
        notes = tuple(note for note in [unsettled(best, rows, images)] if note is not None)
    return SweepReport(folder.path.name, kind, str(folder.path), tuple(rows), best=best, notes=notes)


def _val_images(best: BestTrial) -> int | None:
    """How many images validated; a trial of another machine may not be here to tell."""
    run = None if best.run is None else RunFolder(Path(best.run))
    with suppress(DistillError):
        count = None if run is None else (run.read_info().data or {}).get("val")
        return count if isinstance(count, int) else None
    return None


def _published(
    definition: SweepDefinition,
    folder: SweepFolder,
    trainer: Trainer,
    report: SweepReport,
    chosen: Trial | None,
    *,
    log_keys: Sequence[str] = (),
) -> SweepReport:
    """Write the files about the sweep.

    Raises:
        RunError: No trial was finished; the message is the first failure's.
    """
    report = publish(report, folder, log_keys=log_keys)
    if report.best is None or chosen is None:
        errors = [row.error for row in report.trials if row.error]
        what = f"every trial failed: {errors[0]}" if errors else "no trial was finished"
        raise RunError(f"{folder.path}: {what}", hint=f"see {folder.path / 'result.json'}")
    recipe = trainer.pinned(definition.base.recipe_of(chosen))
    write_best(report.best, recipe, name=report.name, trials=len(report.trials), commands=definition.commands)
    return report
