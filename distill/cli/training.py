"""What ``teacher-finetune`` and ``student`` share: which of four ways to begin a run, and how its end is shown."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from distill.cli.options import elsewhere, typed
from distill.cli.output import Output, jsonable
from distill.cli.progress import ProgressPrinter
from distill.commands import training_verb
from distill.errors import UsageError

if TYPE_CHECKING:
    from distill.pipeline import Options, RerunResult, RunResult
    from distill.recipe import Recipe

__all__ = ["Request", "train", "train_chain"]


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line, before any recipe is read."""

    recipe: str | None
    overrides: list[str]
    runs: Path
    device: str | None
    devices: int
    threads: int | None
    resume: str | None
    rerun: str | None
    init_from: str | None
    dry_run: bool
    json: bool
    quiet: bool
    teachers: tuple[str, ...] = ()
    track: tuple[str, ...] = ()
    seeds: int | None = None

    def options(self, printer: ProgressPrinter) -> Options:
        """The same for the library."""
        from distill.pipeline import Options

        return Options(
            runs_dir=self.runs,
            device=self.device,
            devices=self.devices,
            threads=self.threads,
            init_from=self.init_from,
            command=typed(),
            track=self.track,
            on_event=printer,
        )


Start = Callable[["Recipe", Request, "Options"], "RunResult"]


def train(request: Request, start: Start, *, roles: tuple[str, ...]) -> None:
    """Begin, resume or repeat a run, or try it without writing one, and print what it came to.

    Args:
        start: Begins a new run from a recipe.
        roles: The roles of recipes that this command is for.

    Raises:
        UsageError: Options that exclude each other, or a recipe of another role.
    """
    _check_exclusive(request)
    output = Output(json=request.json, quiet=request.quiet)
    with ProgressPrinter(quiet=request.quiet) as printer:
        if request.dry_run:
            _try_out(request, output, printer, roles)
        elif request.rerun:
            _repeat(request.rerun, request, output, printer)
        elif request.seeds is not None:
            _train_seeds(request, request.seeds, output, printer, roles)
        else:
            result = _train(request, start, printer, roles)
            printer.close()
            _show(result, output, request)


def _train_seeds(
    request: Request, count: int, output: Output, printer: ProgressPrinter, roles: tuple[str, ...]
) -> None:
    recipe = _recipe(request, roles)
    from distill.pipeline.several_seeds import train_seeds
    from distill.report.tables import seeds_table

    results = train_seeds(recipe, seeds=count, teacher=request.teachers or None, options=request.options(printer))
    printer.close()
    seeds = range(recipe.train.seed, recipe.train.seed + len(results))
    document = [jsonable(result) | {"seed": seed} for seed, result in zip(seeds, results, strict=True)]
    output.show(document, lambda width: seeds_table(results, seeds, width))
    output.note(f"next: distill compare{_ending(results[-1])}")


def train_chain(request: Request, then: list[str], generations: int) -> None:
    """Train students one after the other, each the next one's teacher, and print what the last one came to.

    Raises:
        UsageError: Options that exclude each other.
    """
    _check_exclusive(request)
    taken = {
        "--resume": request.resume,
        "--rerun": request.rerun,
        "--dry-run": request.dry_run,
        "--seeds": request.seeds,
    }
    if extra := [name for name, value in taken.items() if value]:
        raise UsageError(
            f"--generations and --then take no {', '.join(extra)}", hint="the same command again goes on with its runs"
        )
    from distill.pipeline.generations import train_generations
    from distill.recipe import load_recipe
    from distill.report.tables import result_table

    output = Output(json=request.json, quiet=request.quiet)
    with ProgressPrinter(quiet=request.quiet) as printer:
        recipes = [_recipe(request, ("student", "baseline")), *(load_recipe(name, request.overrides) for name in then)]
        found = train_generations(
            recipes, generations=generations, teacher=request.teachers, options=request.options(printer)
        )
        printer.close()
    last = found.runs[-1]
    runs = [str(each.run) for each in found.runs]
    output.show(jsonable(last) | {"generations": runs}, lambda _: result_table(last))
    output.note(f"next: distill compare {' '.join(runs)}")


def _train(request: Request, start: Start, printer: ProgressPrinter, roles: tuple[str, ...]) -> RunResult:
    if request.resume:
        from distill.pipeline import resume_run

        return resume_run(request.resume, options=request.options(printer))
    return start(_recipe(request, roles), request, request.options(printer))


def _repeat(reference: str, request: Request, output: Output, printer: ProgressPrinter) -> None:
    from distill.pipeline import rerun
    from distill.report.tables import result_table

    again: RerunResult = rerun(reference, options=request.options(printer))
    printer.close()
    document = jsonable(again.result) | {"original": str(again.original), "differences": list(again.differences)}
    document["changed"] = list(again.changed)
    output.show(document, lambda _: result_table(again.result))
    if again.differences:
        why = f"; not as it was: {', '.join(again.changed)}" if again.changed else ""
        output.warning(f"not the bytes of {again.original}: {', '.join(again.differences)} differ{why}")
    else:
        output.note(f"the same bytes as {again.original}")


def _try_out(request: Request, output: Output, printer: ProgressPrinter, roles: tuple[str, ...]) -> None:
    recipe = _recipe(request, roles)
    from distill.pipeline import dry_run
    from distill.report.tables import dry_run_table

    trial = dry_run(recipe, teacher=request.teachers, options=request.options(printer))
    printer.close()
    output.show(trial, lambda _: dry_run_table(trial))
    if (request.seeds or 1) > 1:
        output.note(f"that is one run of {request.seeds}: --seeds {request.seeds} trains as many")


def _show(result: RunResult, output: Output, request: Request) -> None:
    from distill.report.tables import result_table

    output.show(result, lambda _: result_table(result))
    ending = _ending(result)
    if result.role == "teacher":  # --resume takes up runs of any role
        from distill.pipeline.teacher import recipe_taught_by

        found = recipe_taught_by(result.run.parent.name, beside=Path(request.recipe or "").parent)
        words = ["student", "--recipe", found or "RECIPE", "--teacher", str(result.run)]
        for setting in request.overrides:
            words += ["--set", setting] if setting.startswith("data.") else []  # the student's images are the teacher's
        output.note(f"next: distill {shlex.join(words)}{ending}")
    elif (alone := _without_teacher(result, request)) is not None:
        output.note(f"next: distill student --recipe {shlex.quote(str(alone))}{ending}")
    else:
        output.note(f"next: distill compare{ending}")


def _ending(result: RunResult) -> str:
    """What the next command takes over from this one."""
    return elsewhere(result.run.parent.parent) + (" --allow-code" if "--allow-code" in typed() else "")


def _without_teacher(result: RunResult, request: Request) -> Path | None:
    """The recipe beside a student's of the same from labels alone, as ``recipe new`` drafts it; if it has no run."""
    beside = Path(request.recipe or "")
    if result.role != "student" or not beside.stem.endswith("_student") or not beside.is_file():
        return None
    alone = beside.with_name(f"{beside.stem.removesuffix('_student')}_scratch{beside.suffix}")
    return alone if alone.is_file() and not (result.run.parent.parent / alone.stem).is_dir() else None


def _recipe(request: Request, roles: tuple[str, ...]) -> Recipe:
    from distill.recipe import load_recipe

    assert request.recipe is not None, "checked before"
    recipe = load_recipe(request.recipe, request.overrides)
    if recipe.role not in roles:
        raise UsageError(
            f"{request.recipe} has role {recipe.role}, which this command does not train",
            hint=f"distill {training_verb(recipe.role)} --recipe {request.recipe}",
        )
    return recipe


def _check_exclusive(request: Request) -> None:
    from_run = "--resume" if request.resume else "--rerun" if request.rerun else None
    if from_run is None:
        if request.recipe is None:
            raise UsageError("no recipe", hint="--recipe R begins a run (distill recipe list), --resume RUN goes on")
        return
    given = {
        "--recipe": request.recipe,
        "--set or --seed": request.overrides,
        "--teacher": request.teachers,
        "--seeds": request.seeds,
        "--init-from": request.init_from,
        "--dry-run": request.dry_run,
        "--rerun": request.rerun if request.resume else None,
    }
    extra = [name for name, value in given.items() if value]
    if extra:
        run = request.resume or request.rerun
        raise UsageError(
            f"{from_run} {run} follows the run's own recipe and takes no {', '.join(extra)}",
            hint=f"a changed run is a new one: leave out {from_run}, and name its recipe.yaml with --recipe",
        )
