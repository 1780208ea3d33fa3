"""What a run is made of before it begins: what can be wrong with it is found here, before a folder exists."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch

from distill.data.datasets import num_classes
from distill.data.mixture import mixture_of
from distill.data.own_given import asking_once
from distill.data.splits import Splits, load_splits
from distill.data.views import check_size
from distill.devices import resolve_device, using_threads
from distill.errors import MissingError, UsageError
from distill.events import Event, Note, Tell, default_listener
from distill.models import check_network, params_of
from distill.models.onnx_open import is_exported_file
from distill.models.timm_folder import resolve_timm
from distill.pipeline.image_size import resolve_image_size
from distill.pipeline.objective import resolve_reuse
from distill.pipeline.own import stating_code
from distill.pipeline.resolve import resolve_auto
from distill.pipeline.threads import ProcessLayout
from distill.recipe import Recipe, check_text
from distill.references import count_of, folder_of, run_of
from distill.runs import check_runs_dir, open_run
from distill.team.ranks import local_process_count, process_count, process_rank, under_torchrun
from distill.team.watch import beat, watching
from distill.tracking import check_trackers

__all__ = ["Context", "Options", "in_asked_threads", "prepare"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Options:
    """Where and how a run is carried out: everything that a recipe does not specify.

    Attributes:
        runs_dir: The folder of all runs, where names are looked up.
        into: The folder in which the new run is numbered; None: the folder in ``runs_dir`` with the recipe's name.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``; None picks the best available.
        devices: How many processes, each on its own device.
        threads: CPU threads of each process that computes, overriding the recipe; None leaves them to the recipe.
        timing_threads: CPU threads per operation while an exported file, or a table's model, is timed; None: 1.
        init_from: A run whose weights initialise the network, where names and shapes match.
        command: What the user typed, kept in ``run.json``.
        track: ``tensorboard``, ``wandb``, ``mlflow``: where to log as well. A resumed run logs where it did before.
        on_event: Called with every event of the run; must be picklable for several devices. None: silent,
            except in a notebook, where progress is printed (``distill.ProgressPrinter()`` prints it anywhere).

    Example:
        >>> from pathlib import Path
        >>> here = Options(runs_dir=Path("elsewhere"), device="cpu", threads=1)
        >>> run = finetune_teacher(load_recipe("quickstart_teacher", ["train.epochs=1"]), options=here).run
        >>> run.is_relative_to("elsewhere")
        True
    """

    runs_dir: Path = Path("runs")
    into: Path | None = None
    device: str | None = None
    devices: int = 1
    threads: int | None = None
    timing_threads: int | None = None
    init_from: str | None = None
    command: tuple[str, ...] = ()
    track: tuple[str, ...] = ()
    on_event: Tell | None = None

    def __post_init__(self) -> None:
        """Take what callers from Python have at hand: text for a path, a torch device for its name, a run for a name.

        Raises:
            UsageError: Something that none of these can be.
        """
        settle = partial(object.__setattr__, self)  # frozen from here on
        settle("runs_dir", folder_of(self.runs_dir, "runs_dir"))
        settle("device", None if self.device is None else str(self.device))
        settle("devices", count_of(self.devices, "devices"))
        for name in ("threads", "timing_threads"):
            number = getattr(self, name)
            settle(name, None if number is None else count_of(number, name))
        settle("track", check_trackers(self.track))
        settle("init_from", None if self.init_from is None else run_of(self.init_from))

    def tell(self, event: Event) -> None:
        """Hand an event to whoever listens; of torchrun's processes only the first one tells."""
        beat()
        listener = self.on_event or default_listener()
        if listener is not None and process_rank() == 0:
            listener(event)


def in_asked_threads(verb: Callable[_P, _T]) -> Callable[_P, _T]:
    """Carry out in ``options.threads`` what takes ``options`` by name; afterwards the caller has as many as before."""
    assert inspect.signature(verb).parameters["options"].kind is inspect.Parameter.KEYWORD_ONLY

    @functools.wraps(verb)
    def carried_out(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        options = kwargs.get("options")
        with using_threads(options.threads if isinstance(options, Options) else None):
            return verb(*args, **kwargs)

    return carried_out


@dataclass(frozen=True)
class Context:
    """A run that can begin.

    Attributes:
        recipe: With every ``auto`` resolved but ``teacher.logits``, which the worker decides before the folder exists.
        splits: None in a process that still has to load them.
        resume: The run folder to go on with.
        choices: What ``auto`` became and why, for ``run.json``.
    """

    recipe: Recipe
    options: Options
    device: torch.device
    params: int
    splits: Splits | None
    resume: Path | None = None
    choices: dict[str, Any] = field(default_factory=dict)


@watching()
@asking_once()
def prepare(recipe: Recipe, options: Options, *, resume: Path | None = None, splits: Splits | None = None) -> Context:
    """Check the budget, then find the device, then load the data, then resolve every ``auto``.

    Args:
        splits: The recipe's data where it is loaded already, as by a sweep for the trial before.

    Raises:
        UsageError: Settings that cannot be had on this device; a path that no recipe can hold.
        BudgetError: More parameters than ``model.max_params``.
        MissingError: No such device, no data, no weights.
        DataError: The data cannot be used.
    """
    if resume is None:
        check_runs_dir(options.runs_dir)
        check_text(recipe)
        if is_exported_file(recipe.name):
            raise UsageError(
                f"name: {recipe.name}: a run of that name would be taken for an exported file",
                hint=f"--set name={recipe.name.rpartition('.')[0]}",
            )
        recipe = recipe.model_copy(update={"search": None})  # a run is of one shape
    if options.init_from is not None and resume is None:  # a name means another run tomorrow
        options = replace(options, init_from=str(open_run(options.init_from, runs_dir=options.runs_dir).path))
    recipe = recipe.model_copy(update={"model": resolve_timm(recipe.model)})
    recipe = resolve_reuse(recipe, runs_dir=options.runs_dir)
    recipe = stating_code(recipe, began=resume is not None, tell=options.tell)
    if not recipe.data.is_found_out:  # a folder's classes are counted on disk; the others are known
        check_network(recipe, num_classes(recipe.data))
    device = resolve_device(options.device)
    _check_devices(recipe, device, options)
    if recipe.data.is_found_out:
        check_network(recipe, num_classes(recipe.data))
    recipe = resolve_image_size(recipe, runs_dir=options.runs_dir, tell=options.tell, splits=splits)
    check_size(recipe.augment, recipe.data.side)
    if splits is None:
        splits = load_splits(recipe.data, options.tell, unlabelled=True)
        for line in (splits.note or "").splitlines():
            options.tell(Note(line))
    mixture_of(recipe, splits)  # refuses too few
    recipe, choices = resolve_auto(recipe, device, splits, options.tell, layout=_layout(options))
    return Context(
        recipe=recipe,
        options=options,
        device=device,
        params=params_of(recipe.model, len(splits.dataset.classes)),
        splits=splits,
        resume=resume,
        choices=choices,
    )


def _layout(options: Options) -> ProcessLayout:
    if under_torchrun():
        return ProcessLayout(process_count(), here=local_process_count(), threads=options.threads)
    return ProcessLayout(options.devices, here=options.devices, threads=options.threads)


def _check_devices(recipe: Recipe, device: torch.device, options: Options) -> None:
    count = process_count() if under_torchrun() else options.devices
    if count == 1:
        return
    if device.type == "mps":
        raise UsageError(f"{count} devices: a Mac has one GPU", hint="leave out --devices, or use --device cpu")
    if device.type == "cuda" and options.device not in (None, "auto", "cuda"):
        raise UsageError(f"--device {options.device} is one device", hint=f"--device cuda --devices {count}")
    if device.type == "cuda" and not under_torchrun() and count > torch.cuda.device_count():
        raise MissingError(
            f"--devices {count}: this machine has {torch.cuda.device_count()}", hint="distill doctor lists them"
        )
    if recipe.train.sync_batchnorm and device.type != "cuda":
        raise UsageError(
            f"train.sync_batchnorm works on CUDA devices alone, not on {count} of {device.type}",
            hint="--set train.sync_batchnorm=false: batch norm is then each process's own",
        )
    if recipe.train.batch_size < 2 * count:
        raise UsageError(
            f"train.batch_size {recipe.train.batch_size} is over all devices: {count} of them need {2 * count} or more",
            hint="raise train.batch_size, or use fewer devices",
        )


def without_splits(context: Context) -> Context:
    """A context small enough to send to another process."""
    return replace(context, splits=None)
