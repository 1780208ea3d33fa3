"""What a user does with distill, one function each; the command line and Python call the same ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.errors import DistillError, UsageError
from distill.events import Note
from distill.files import sha256_file
from distill.pipeline.context import Options, prepare
from distill.pipeline.ensemble import with_banks
from distill.pipeline.launch import launch
from distill.pipeline.own import with_own
from distill.pipeline.provenance import changes, differing, edited
from distill.pipeline.record import read_result
from distill.pipeline.teacher import resolve_teacher, taught_as_before
from distill.pipeline.worker import train_worker
from distill.recipe import Recipe, load_recipe
from distill.recipe.own import OwnLoss
from distill.results.runs import RunResult
from distill.runs import RunFolder, open_run
from distill.runs.checkpoints import MODEL_FILE, best_checkpoint
from distill.runs.find import place_named
from distill.runs.origin import made_again

if TYPE_CHECKING:
    from torch import nn

__all__ = ["RerunResult", "finetune_teacher", "rerun", "resume_run", "train_student"]


def finetune_teacher(
    recipe: Recipe | str | Path = "resnet152_cifar10",
    *,
    network: nn.Module | Callable[..., nn.Module] | None = None,
    data: Any = None,
    objective: Callable[..., Any] | None = None,
    options: Options | None = None,
) -> RunResult:
    """Fine-tune (or train from scratch) a network to be used as a teacher.

    Args:
        recipe: A recipe, a path, or a bundled name; its role is ``teacher`` or ``baseline``.
        network: Your own network instead of the recipe's: ``make(num_classes=...)``, or a module, which is copied.
        data: Your own images instead of the recipe's: ``{"train": (images, labels), "test": (images, labels),
            "classes": [...]}``, a map-style Dataset instead of a pair, or a function that returns either.
        objective: Your own loss instead of the recipe's main term: ``loss(student, labels)``, or a class.

    Raises:
        DistillError: See :mod:`distill.errors` for the kinds and their exit codes.

    Example:
        >>> teacher = finetune_teacher(load_recipe("quickstart_teacher", ["train.epochs=2"]))
        >>> teacher.status, teacher.epochs
        ('finished', 2)
    """
    recipe = with_own(load_recipe(recipe), network=network, data=data, objective=objective)
    if recipe.teacher is not None:
        raise UsageError(
            f"recipe {recipe.name} is a student's: it names a teacher",
            hint=f"distill student --recipe {recipe.name}",
        )
    return _train(recipe, options or Options())


def train_student(
    recipe: Recipe | str | Path,
    *,
    teacher: Any = None,
    network: nn.Module | Callable[..., nn.Module] | None = None,
    data: Any = None,
    objective: Callable[..., Any] | None = None,
    options: Options | None = None,
) -> RunResult:
    """Train a student from its teacher or, with objective ``supervised``, without one.

    Args:
        teacher: A run (its name, its folder, or what ``finetune_teacher`` returned) that replaces the recipe's
            ``teacher.run``; or several, which teach with their mean logits.
        network: Your own network instead of the recipe's: ``make(num_classes=...)``, or a module, which is copied.
        data: Your own images instead of the recipe's: ``{"train": (images, labels), "test": (images, labels),
            "classes": [...]}``, a map-style Dataset instead of a pair, or a function that returns either.
        objective: Your own loss instead of the recipe's term: ``loss(student, teacher, labels)``, or a class.

    Example:
        >>> taught = train_student(load_recipe("quickstart_student", ["train.epochs=2"]), teacher="quickstart_teacher")
        >>> alone = train_student(load_recipe("quickstart_scratch", ["train.epochs=2"]))
        >>> alone.run.parent.name
        'quickstart_scratch'
    """
    options = options or Options()
    recipe = with_own(load_recipe(recipe), network=network, data=data, objective=objective)
    recipe = resolve_teacher(recipe, runs_dir=options.runs_dir, override=teacher)
    return _train(with_banks(recipe, options), options)


def resume_run(reference: Any, *, options: Options | None = None) -> RunResult:
    """Resume a run; on the CPU the result is byte for byte that of an uninterrupted run.

    A finished run's result is returned unchanged; a run that never saved a checkpoint starts over in its folder.

    Example:
        >>> resume_run("quickstart_student").epochs  # it has finished: its result is returned
        2
    """
    options = options or Options()
    run = open_run(reference, runs_dir=options.runs_dir, finished=False)
    if run.status == "finished":
        options.tell(Note(f"{run.path} is finished"))
        with suppress(DistillError):  # killed at its very last act; a folder of somebody else's is fine as it is
            run.point_latest()
        run.clear_dead()
        return read_result(run)
    if (made := made_again(run.info)) is not None:
        what, command = made
        raise UsageError(f"{run.path} was being {what} when it was stopped", hint=f"make it again: {command}")
    return launch(train_worker, prepare(taught_as_before(run), _as_before(run, options), resume=run.path))


@dataclass(frozen=True)
class RerunResult:
    """A repeated run, and whether it ended with the same bytes.

    Attributes:
        differences: The files that differ: none where it matched.
        changed: What is not as it was then, and may be why: versions, data, teacher, device, threads.
    """

    result: RunResult
    original: Path
    differences: tuple[str, ...]
    changed: tuple[str, ...] = ()


def rerun(reference: Any, *, options: Options | None = None) -> RerunResult:
    """Repeat a finished run in a new folder, with the same recipe, seeds and threads, and compare the bytes.

    Example:
        >>> rerun("quickstart_scratch").differences
        ()
    """
    options = options or Options()
    run = open_run(reference, runs_dir=options.runs_dir)
    if (made := made_again(run.info)) is not None:
        what, command = made
        raise UsageError(f"{run.path} was {what} and not trained", hint=f"make it again: {command}")
    result = _train(taught_as_before(run), _as_before(run, options))
    again = RunFolder(result.run)
    pairs = {
        "metrics.jsonl": [folder.path / "metrics.jsonl" for folder in (run, again)],
        MODEL_FILE: [best_checkpoint(folder.checkpoints) / MODEL_FILE for folder in (run, again)],
    }
    differences = tuple(name for name, (one, two) in pairs.items() if sha256_file(one) != sha256_file(two))
    return RerunResult(result, run.path, differences, _changed(run, again))


def _changed(run: RunFolder, again: RunFolder) -> tuple[str, ...]:
    """What decides a run's bytes besides its recipe, where it is no longer the same."""
    before, now = run.info, again.info
    one, two = (each.recipe() for each in (run, again))
    pairs = {
        "device": (before.device, now.device),
        "threads": (before.extra.get("resumed_threads") or before.threads, now.threads),
        "its network's code": (getattr(one.model, "code_sha256", None), getattr(two.model, "code_sha256", None)),
        "its loss's code": (_loss_code(one), _loss_code(two)),
        "its data's code": (one.data.code_sha256, two.data.code_sha256),
        "initial weights": (before.extra.get("initial_sha256"), now.extra.get("initial_sha256")),
    }
    pairs |= {name: (before.versions.get(name), version) for name, version in now.versions.items()}
    return (*changes(before, data=now.data or {}, teacher=now.teacher), *differing(pairs), *edited(run))


def _loss_code(recipe: Recipe) -> str | None:
    """Of a loss of one's own, the main term or one that is added: there is one at most, as each kind is there once."""
    terms: Sequence[object] = recipe.objective.terms
    return next((term.code_sha256 for term in terms if isinstance(term, OwnLoss)), None)


def _as_before(run: RunFolder, options: Options) -> Options:
    """The options a run began with, where they decide its bytes and the caller leaves them open."""
    info, threads = run.info, run.recipe().train.threads
    device, devices = info.extra.get("device_type"), info.extra.get("devices", 1)
    start = info.extra.get("init_from")
    return Options(
        runs_dir=options.runs_dir,
        device=options.device or device,
        devices=options.devices if options.devices > 1 else devices,
        # the recipe has them, unless --threads overrode it
        threads=options.threads or (None if threads == info.threads else info.threads),
        init_from=None if start is None else str(place_named(start, run)),
        command=options.command,
        on_event=options.on_event,
    )


def _train(recipe: Recipe, options: Options) -> RunResult:
    return launch(train_worker, prepare(recipe, options))
