"""A finished run to a smaller one: channels cut, then trained on as the run was."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from distill.compression.cut_limit import CutLimit
from distill.compression.prune import Criterion, PrunedNetwork, criteria, find_cut, require_torch_pruning, smallest
from distill.compression.results import Pruned
from distill.data.images import evenly_spaced_positions
from distill.data.splits import Splits, load_splits
from distill.errors import DistillError, NotPrunableError, UsageError
from distill.evaluation.askable import refuse_drawn_anew
from distill.evaluation.assess import assess_classifier
from distill.evaluation.cost import model_cost
from distill.evaluation.latency import time_one_image
from distill.events import Note, silent
from distill.models import build_model, resolved_model, without_weights
from distill.models.trained import Trained, load_trained
from distill.pipeline.context import Options, in_asked_threads, prepare
from distill.pipeline.launch import launch
from distill.pipeline.provenance import foreseen
from distill.pipeline.source import find_teacher
from distill.pipeline.teacher import resolve_teacher, taught_as_before
from distill.pipeline.untrained import finish_untrained, holding_weights
from distill.pipeline.worker import train_worker
from distill.recipe import Recipe, dump_recipe, parse_recipe
from distill.recipe.derived import derived_name
from distill.recipe.model_specs import ModelSpec
from distill.results.figures import Figures
from distill.runs import RunFolder, open_run
from distill.team.watch import watching

__all__ = ["check_cut", "cost_of_cut", "prune", "prune_to"]

_MULTIPLE = 8
_TAYLOR_IMAGES, _TAYLOR_BATCH = 512, 64
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class _Source:
    """A run to be cut: its folder, its recipe with its teacher, its network and its images."""

    run: RunFolder
    recipe: Recipe
    trained: Trained
    splits: Splits

    @classmethod
    def of(cls, reference: Any, options: Options) -> _Source:
        require_torch_pruning()
        run = open_run(reference, runs_dir=options.runs_dir)
        trained = load_trained(run, device=_CPU, precision="fp32")
        recipe = resolve_teacher(taught_as_before(run), runs_dir=options.runs_dir, override=None)
        splits = load_splits(recipe.data, options.tell, unlabelled=True)
        refuse_drawn_anew(splits, "val", recipe.data, str(run.path), run.info.trained_on)
        return cls(run, recipe, trained, splits)

    def cut_to(self, limit: CutLimit, criterion: Criterion, multiple: int) -> tuple[nn.Module, PrunedNetwork]:
        """The run's network, and the largest one cut from it that costs no more."""
        network, size = _network(self.trained), self.recipe.model.input_size
        if criterion == "taylor":
            _gather_gradients(network, self.trained, self.splits)
        fits = limit.fits(network, size)
        if fits(network):
            raise UsageError(f"{self.run.path} is within {limit} as it is", hint="ask for less")
        cut = find_cut(network, size, criterion=criterion, multiple=multiple, fits=fits)
        if cut is None:
            least = smallest(network, size, criterion=criterion, multiple=multiple)
            finer = next((each for each in (4, 1) if each < multiple), None)
            others = "" if finer is None else f"other widths: --multiple {finer}"
            if model_cost(least, size).params == model_cost(network, size).params:
                raise NotPrunableError(
                    f"no channel of {self.run.path} can be cut" + (f" in multiples of {multiple}" if finer else ""),
                    hint=f"allow {others}" if others else None,
                )
            raise UsageError(
                f"{limit} is out of reach of {self.run.path}: {_cost(least, network, size)}",
                hint="let more stay" + (others and f", or allow {others}"),
            )
        return network, cut

    def recipe_of(self, cut: PrunedNetwork, name: str) -> Recipe:
        """What builds and trains the cut network: another network, all of which is to learn again."""
        spec = _spec(self.recipe.model, self.trained, cut)
        _require_rebuilt(cut, spec, len(self.trained.classes), self.recipe.model.input_size)
        anew = {"channels_last": "auto", "threads": "auto", "freeze_backbone_epochs": 0}
        train = self.recipe.train.model_copy(update=anew)
        return self.recipe.model_copy(update={"name": name, "model": spec, "train": train})


def prune(
    reference: Any,
    *,
    macs: float | None = None,
    params: int | None = None,
    latency_ms: float | None = None,
    criterion: Criterion = "l2",
    multiple: int = _MULTIPLE,
    epochs: int | None = None,
    train: bool = True,
    options: Options | None = None,
) -> Pruned:
    """Cut channels of a finished run's network until it is small or fast enough, and train it further.

    The cut network is a run of its own (``<recipe>_<goal>_cut``): its recipe states every width, so that it is rebuilt
    without the pruning library. Training continues as the run ``<recipe>_<goal>``, with the same teacher, bank and
    images.

    Args:
        macs: The share of multiply-accumulates that may remain.
        params: The most parameters it may have.
        latency_ms: The most milliseconds for one image, in PyTorch on a CPU; each candidate is timed alone.
        criterion: How channels are ranked: ``l2``, ``bn`` or ``taylor``.
        multiple: Widths stay multiples of this, which suits vector kernels.
        epochs: Epochs of further training, over which its schedule is stretched; None: as many as the run had.
        train: False stops after the cut.

    Raises:
        MissingError: Torch-Pruning is not installed.
        UsageError: A goal is out of reach.
        NotPrunableError: The network cannot be pruned (transformers).

    Example:
        >>> cut = prune("quickstart_teacher", macs=0.5, train=False)
        >>> cut.after.params < cut.before.params
        True
    """
    limit = CutLimit.of(macs=macs, params=params, latency_ms=latency_ms)
    return prune_to(
        reference, limit, criterion=criterion, multiple=multiple, epochs=epochs, train=train, options=options
    )


@watching()
@in_asked_threads
def prune_to(
    reference: Any,
    limit: CutLimit,
    *,
    criterion: Criterion = "l2",
    multiple: int = _MULTIPLE,
    epochs: int | None = None,
    train: bool = True,
    options: Options | None = None,
) -> Pruned:
    """:func:`prune`, to a limit."""
    options = options or Options()
    check_cut(criterion, multiple, epochs, train=train)
    source = _Source.of(reference, options)
    options.tell(Note(f"cutting {source.run.path} by {criterion}, to {limit}"))
    network, cut = source.cut_to(limit, criterion, multiple)
    recipe = source.recipe_of(cut, derived_name(source.recipe.name, f"_{limit.label}"))
    folder, before, after = _write_cut(source, recipe, network, cut, options)
    _warn_of_no_gain(before, after, options)
    made = Pruned(source.run.path, folder.path, None, criterion, cut.multiple, before, after)
    return _trained_on(made, recipe, epochs, options) if train else made


@in_asked_threads
def cost_of_cut(
    reference: Any, limit: CutLimit, *, criterion: Criterion = "l2", options: Options | None = None
) -> Figures:
    """Parameters and multiply-accumulates of the network that :func:`prune_to` would train on; nothing is written."""
    source = _Source.of(reference, replace(options or Options(), on_event=silent))
    _, cut = source.cut_to(limit, criterion, _MULTIPLE)
    return model_cost(cut.module, source.recipe.model.input_size).figures


def check_cut(criterion: str, multiple: int = 8, epochs: int | None = None, *, train: bool = True) -> None:
    """Refuse what no cut can be made by.

    Raises:
        UsageError: It names the option.
    """
    if criterion not in criteria():
        raise UsageError(f"--criterion {criterion} is none", hint=f"one of {', '.join(criteria())}")
    if multiple < 1:
        raise UsageError(f"--multiple {multiple} is no width", hint="8 is a good one")
    if epochs is not None and epochs < 1:
        raise UsageError(f"--epochs {epochs} is too few", hint="--no-train stops after the cut")
    if epochs is not None and not train:
        raise UsageError("--epochs with --no-train: nothing is trained", hint="one of them")


def _network(trained: Trained) -> nn.Module:
    network = copy.deepcopy(trained.module).to(memory_format=torch.contiguous_format)  # every kernel is right there
    return network.eval().requires_grad_(True)


def _gather_gradients(network: nn.Module, trained: Trained, splits: Splits) -> None:
    """Of the cross-entropy on training images, spread over all of them."""
    part = splits.labelled
    chosen = evenly_spaced_positions(len(part), _TAYLOR_IMAGES)
    pixels, labels = torch.from_numpy(part.take(chosen)), torch.from_numpy(np.asarray(part.labels)[chosen])
    for images, targets in zip(pixels.split(_TAYLOR_BATCH), labels.split(_TAYLOR_BATCH), strict=True):
        loss = F.cross_entropy(network(trained.normalize(images)), targets, reduction="sum")
        (loss / len(chosen)).backward()


def _cost(least: nn.Module, network: nn.Module, size: int) -> str:
    cost, latency = model_cost(least, size), time_one_image({"least": least}, size)["least"].median_ms
    share = math.ceil(1000 * cost.macs / model_cost(network, size).macs) / 10  # up: what may be asked for
    return f"the least is {cost.params:,} parameters, {share:g}% of its multiply-accumulates, {latency:.2f} ms"


def _spec(spec: ModelSpec, trained: Trained, cut: PrunedNetwork) -> ModelSpec:
    """Complete in itself: every width, its normalisation, and nothing to fetch."""
    widths = tuple({each[0]: each for each in (*spec.widths, *cut.widths)}.values())  # the later one counts
    return resolved_model(without_weights(spec).model_copy(update={"widths": widths}), trained.normalize)


def _require_rebuilt(cut: PrunedNetwork, spec: ModelSpec, classes: int, size: int) -> None:
    """What the recipe builds answers as what was cut does; else the network has a width that is no layer's."""
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    try:
        rebuilt = build_model(spec, num_classes=classes).eval()
        rebuilt.load_state_dict(cut.module.state_dict())
        with torch.no_grad():
            same = torch.allclose(rebuilt(images), cut.module(images), rtol=1e-4, atol=1e-5)
    except (DistillError, MemoryError, OSError):
        raise
    except Exception as error:  # a user's network may raise anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1].strip()  # load_state_dict's has many
        raise NotPrunableError(f"{spec.name} cannot be pruned: rebuilt with other widths, {reason:.160}") from error
    if not same:
        raise NotPrunableError(f"{spec.name} cannot be pruned: a width of it belongs to no layer")


def _write_cut(
    source: _Source, recipe: Recipe, network: nn.Module, cut: PrunedNetwork, options: Options
) -> tuple[RunFolder, Figures, Figures]:
    """A finished run that holds the surviving weights; and what the network cost and was worth before and after."""
    origin, splits = str(source.run.path), source.splits
    recipe = recipe.model_copy(update={"name": derived_name(recipe.name, "_cut")})
    into = None if options.into is None else options.into.with_name(f"{options.into.name}_cut")
    context = prepare(recipe, replace(options, into=into, init_from=origin, devices=1), splits=splits)
    classes = splits.dataset.classes
    teacher = find_teacher(context.recipe, runs_dir=options.runs_dir, device=_CPU, classes=classes)
    about = foreseen(context.recipe, splits, teacher)
    made_from = {"pruned_from": origin}
    with holding_weights(context, splits, cut.module.state_dict(), teacher=about, made_from=made_from) as run:
        before, after = _measured(source, run, network, cut.module)
        line = f"cut from {origin}; {len(cut.widths)} layers have other widths"
        finish_untrained(run, teacher=about, val_top1=after.val_top1, line=line)
    return run, before, after


def _measured(source: _Source, folder: RunFolder, network: nn.Module, cut: nn.Module) -> tuple[Figures, Figures]:
    """What a network cost and was worth before the cut, and after it; the two are timed in turn."""
    size, splits = source.recipe.model.input_size, source.splits
    latency = time_one_image({"before": network, "after": cut}, size)

    def figures(name: str, module: nn.Module, trained: Trained) -> Figures:
        cost = replace(model_cost(module, size).figures, latency_ms={1: latency[name]})
        if splits.val is None:
            return cost
        found = assess_classifier(trained, splits, trained.recipe.data, split="val")
        return replace(cost, val_top1=found.result.top1, val_images=len(splits.val))

    after = load_trained(folder, device=_CPU, precision="fp32")
    return figures("before", network, source.trained), figures("after", cut, after)


def _warn_of_no_gain(before: Figures, after: Figures, options: Options) -> None:
    if after.latency_ms[1].median_ms >= before.latency_ms[1].median_ms:
        options.tell(
            Note(
                f"fewer channels, but not faster for one image: {after.latency_ms[1].median_ms:.2f} ms, "
                f"before {before.latency_ms[1].median_ms:.2f} ms",
                "warning",
            )
        )


def _trained_on(made: Pruned, recipe: Recipe, epochs: int | None, options: Options) -> Pruned:
    if epochs is not None:
        schedule = recipe.schedule.stretched(epochs / recipe.train.epochs)
        objective = recipe.objective.after_epochs(recipe.train.epochs)
        recipe = recipe.model_copy(update={"objective": objective, "schedule": schedule})
        recipe = parse_recipe(dump_recipe(recipe), source=recipe.name, overrides=[f"train.epochs={epochs}"])
    result = launch(train_worker, prepare(recipe, replace(options, init_from=str(made.cut))))
    return replace(made, run=result.run, trained_val_top1=result.val_top1)
