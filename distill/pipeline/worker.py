"""What every process of a run does: load, build, fit, and (the first one) write the folder."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from distill.data.splits import Splits, load_splits
from distill.errors import DataError, DivergedError
from distill.events import EpochDone, Event, Note, RunStarted, StepDone
from distill.fingerprint import state_sha256
from distill.models.own_answers import keep_own_answers
from distill.models.reuse import copy_classifier
from distill.models.trained import Trained, shipped_checkpoint
from distill.objectives import Objective
from distill.pipeline.build import build_job, build_network, resumes
from distill.pipeline.cautions import Start, cautions
from distill.pipeline.context import Context
from distill.pipeline.failures import on_this_machine
from distill.pipeline.introduce import introduce
from distill.pipeline.namesake import namesake_note
from distill.pipeline.objective import find_objective
from distill.pipeline.provenance import about_data, foreseen, refuse_changes
from distill.pipeline.record import caution, finish, read_result, record, recorded
from distill.pipeline.source import OpenedTeacher, find_teacher, open_source
from distill.pipeline.teacher_settings import resolve_teacher_settings
from distill.recipe.model_specs import PythonModel
from distill.results.runs import RunResult
from distill.runs import RunFolder, open_run
from distill.runs.checkpoints import last_checkpoint, load_checkpoint
from distill.teaching.teacher_file import Teacher
from distill.team.shares import Distributed, Team
from distill.team.stop import watch_signals
from distill.team.watch import Watchdog, watching
from distill.tracking import Tracking, known_trackers, tracking
from distill.train.loop import fit

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["train_worker"]


def train_worker(fabric: Fabric, context: Context) -> RunResult:
    """Carry out a run in this process and return its result."""
    team = Distributed(fabric)
    options = replace(context.options, devices=team.world_size)  # what torchrun started is not in the options
    context = replace(context, options=options)
    with watching(rank=team.rank) as watch, on_this_machine(fabric.device, context):
        return _train(fabric, team, context, watch)


@dataclass(frozen=True)
class _Plan:
    """What all processes agree on before there is a folder.

    Attributes:
        context: With every ``auto`` of the teacher resolved.
        module: The network as the run begins with it.
    """

    context: Context
    splits: Splits
    teacher: Teacher | None
    objective: Objective
    module: nn.Module


@dataclass(frozen=True)
class _Begun:
    """A run that has its folder, which the first process alone writes: to the others it is a path."""

    path: Path
    run: RunFolder | None
    tracked: Tracking | None


def _train(fabric: Fabric, team: Team, context: Context, watch: Watchdog) -> RunResult:
    plan = _planned(fabric, team, context)
    recipe, options = plan.context.recipe, plan.context.options
    with ExitStack() as stack:
        begun = _begin(stack, plan, team, watch)
        source = None
        if recipe.teacher is not None:  # a missing bank is built first, by all processes together
            source = open_source(
                recipe,
                plan.splits,
                plan.teacher,
                requires=plan.objective.requires,
                device=fabric.device,
                tell=options.tell,
                team=team,
            )
        if begun.run is not None and source is not None:
            if plan.context.resume:
                refuse_changes(begun.run, data=about_data(plan.splits), teacher=source.about)
            begun.run.write_info(teacher=source.about)
        _fit(fabric, team, plan, begun, source, watch=watch)
        if begun.run is not None:
            if isinstance(recipe.model, PythonModel):
                keep_own_answers(begun.run, plan.module, recipe.model, shipped_checkpoint(begun.run).model_state)
            finish(begun.run, plan.context)
    result = team.broadcast(read_result(begun.run) if begun.run is not None else None)  # others may not see the folder
    assert result is not None, "the first process has the run"
    return result


def _planned(fabric: Fabric, team: Team, context: Context) -> _Plan:
    splits = context.splits or load_splits(context.recipe.data, context.options.tell, unlabelled=True)
    _require_same_images(splits, context, team)
    teacher = find_teacher(
        context.recipe, runs_dir=context.options.runs_dir, device=fabric.device, classes=splits.dataset.classes
    )
    objective = find_objective(context.recipe, splits, teacher, devices=team.world_size)
    chosen = (
        resolve_teacher_settings(context.recipe, splits, teacher, objective.requires) if team.is_main_process else None
    )
    agreed = team.broadcast(chosen)
    assert agreed is not None, "the first process chose"
    recipe, choices = agreed
    context = replace(context, recipe=recipe, choices=context.choices | choices)
    module = build_network(context, splits)  # before a folder exists: weights may be missing
    if recipe.model.reuse is not None and not resumes(context):
        assert teacher is not None, "simkd names its teacher"
        assert isinstance(teacher.trained, Trained), "the schema asks for a run"
        copy_classifier(module, teacher.trained.module)
    return _Plan(context, splits, teacher, objective, module)


def _begin(stack: ExitStack, plan: _Plan, team: Team, watch: Watchdog) -> _Begun:
    """Make the run's folder, or take it up again; what the stack holds then ends with the run."""
    context, recipe, splits, teacher = plan.context, plan.context.recipe, plan.splits, plan.teacher
    tell = context.options.tell
    run, tracked = None, None
    if team.is_main_process:
        for note in introduce(recipe, teacher):
            tell(note)
        about = foreseen(recipe, splits, teacher)
        initial = None if resumes(context) else state_sha256(plan.module.state_dict())
        run = stack.enter_context(recorded(context, splits, teacher=about, initial=initial))
        watch.log = run.log
        if not context.resume and context.options.into is None and (line := namesake_note(run, recipe)) is not None:
            tell(Note(line))
        trackers = context.options.track or (known_trackers(run.path) if context.resume else ())
        tracked = stack.enter_context(tracking(run, trackers, tell))
        if initial is not None:
            options, begun = context.options, None
            if options.init_from is not None:
                begun = open_run(options.init_from, runs_dir=options.runs_dir)
            caution(run, cautions(recipe, splits, teacher, Start(initial, begun, options.runs_dir)), tell)
    path = Path(team.broadcast(str(run.path) if run else ""))
    watch.hint = f"is a kernel wrong on this machine? distill doctor --recipe {path / 'recipe.yaml'}"
    return _Begun(path, run, tracked)


def _require_same_images(splits: Splits, context: Context, team: Team) -> None:
    """Code of the user's own is called by each process: all must be given the same images.

    Raises:
        DataError: This one was given others than the first.
    """
    if team.broadcast(splits.shown_fingerprint) != splits.shown_fingerprint:
        raise DataError(
            f"{context.recipe.data.place} gave this process other images than the first one",
            hint="seed what it draws: numpy.random.default_rng(0); every process calls it once",
        )


def _fit(
    fabric: Fabric, team: Team, plan: _Plan, begun: _Begun, source: OpenedTeacher | None, *, watch: Watchdog
) -> None:
    """Train to the end, from the last checkpoint where there is one; every event is recorded, told and tracked."""
    context, run, path = plan.context, begun.run, begun.path
    last = last_checkpoint(path / "checkpoints") if run is not None and context.resume else None
    last = team.broadcast(last)
    resume = None if last is None else load_checkpoint(last)
    if run is not None and context.resume:
        kept = resume.epoch if resume else 0
        run.truncate_metrics(kept)
        run.truncate_timing(kept)
    job = build_job(
        fabric,
        context,
        plan.splits,
        source,
        module=plan.module,
        objective=plan.objective,
        path=path,
        saves=run is not None,
    )
    try:
        with watch_signals() as stop, closing(fit(job, fabric, resume=resume, stop=stop)) as events:
            for event in events:
                watch.at = _reached(event) or watch.at
                if run is not None:
                    record(run, event)
                    context.options.tell(event)
                    if begun.tracked is not None:
                        begun.tracked(event)
    except DivergedError:
        if source is not None:
            source.check_answers()  # was it the student?
        raise
    if source is not None:
        source.check_answers()
        source.check_unchanged()


def _reached(event: Event) -> tuple[int, int] | None:
    """The epoch, and how many of its steps are done."""
    match event:
        case StepDone(epoch=epoch, step=step):
            return epoch, step
        case RunStarted(epoch=epoch) | EpochDone(epoch=epoch):
            return epoch, 0
    return None
