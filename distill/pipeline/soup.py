"""Several finished runs to one network: the mean of their weights (model soups, arXiv:2203.05482)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from distill.compression.results import Soup, SoupMember
from distill.data.splits import Splits, load_splits
from distill.devices import resolve_device
from distill.errors import UsageError
from distill.evaluation.askable import refuse_drawn_anew
from distill.evaluation.statistics import compare_images
from distill.events import Note, Tell
from distill.models import resolved_model, without_weights
from distill.models.mean_weights import mean_weights
from distill.models.onnx_open import is_exported_file
from distill.models.trained import Trained, load_trained
from distill.pipeline.cautions import of_origin
from distill.pipeline.context import Options, in_asked_threads, prepare
from distill.pipeline.judge import Judge
from distill.pipeline.provenance import teachers_weights
from distill.pipeline.record import caution
from distill.pipeline.teacher import taught_as_before
from distill.pipeline.untrained import finish_untrained, holding_weights
from distill.recipe import Recipe
from distill.recipe.derived import derived_name
from distill.references import check_name, listed, run_of
from distill.runs import RunFolder, open_run
from distill.runs.origin import SOUP_OF, SOUP_TRIED
from distill.team.watch import watching
from distill.text import brief, counted, cut, percent

__all__ = ["soup"]

_LONGEST = 60  # of a value in a message
_TRAINED_AS = ("input_size", "normalize", "max_params", "dropout", "stem_dropout", "code_sha256")


@watching()
@in_asked_threads
def soup(
    references: Sequence[Any], *, greedy: bool = False, name: str | None = None, options: Options | None = None
) -> Soup:
    """Average the weights of several finished runs into one network, which costs what one of them costs.

    That works for runs of one network that went different ways from the same weights, such as fine-tunings of one
    pretrained network with other settings or seeds (``--init-from``); of runs that began apart the mean knows nothing,
    which the accuracy shows. The result is a run of its own, ``<recipe>_soup``, with the first one's recipe.

    Args:
        references: Two runs or more, each by its folder or name.
        greedy: Begin with the run that has the best validation accuracy, and take in each of the others, from the best
            to the worst, where the mean is then no worse on the validation images; False: all count alike.
        name: Of the new run; None: the first one's recipe's, and ``_soup``.

    Raises:
        UsageError: Fewer than two runs; they differ in network, classes or images; ``greedy`` without validation
            images.

    Example:
        >>> settings = ["name=more", "train.epochs=1"]
        >>> more = [
        ...     train_student(
        ...         load_recipe("quickstart_scratch", [*settings, f"train.seed={seed}"]),
        ...         options=Options(init_from="quickstart_scratch"),
        ...     )
        ...     for seed in (1, 2)
        ... ]
        >>> soup(more).run.parent.name
        'more_soup'
    """
    options = options or Options()
    if name is not None and is_exported_file(check_name(name, "a run")):
        raise UsageError(
            f"--name {name}: a run of that name would be taken for an exported file",
            hint=f"--name {name.rpartition('.')[0]}",
        )
    runs = _opened(references, options)
    device = resolve_device(options.device)
    first = load_trained(runs[0], device=device, precision="fp32")
    for run in runs[1:]:  # looked at before any is judged, and one at a time: they may be large
        _require_alike(first, load_trained(run, device=device, precision="fp32"))
    splits = load_splits(first.recipe.data, options.tell, unlabelled=True)
    refuse_drawn_anew(splits, "val", first.recipe.data, first.place, runs[0].info.trained_on)
    if greedy and splits.val is None:
        raise UsageError(
            f"--greedy chooses by validation images: {first.place} has none (data.val_fraction: 0)",
            hint="without it every run counts alike",
        )
    flattered = of_origin(runs, first.recipe.data, splits, options.runs_dir)
    if greedy and flattered:
        raise UsageError(
            f"--greedy chooses by validation images: {flattered[0]}", hint="without it every run counts alike"
        )
    judge = Judge.of(splits)
    if judge.split == "train":
        text = "these runs have no validation images: the mean is judged on images they were trained on"
        options.tell(Note(text, "warning"))
    _check_sizes(runs, options.tell, greedy=greedy)
    options.tell(Note(f"averaging {counted(len(runs), 'run')}, judged on {judge.what}"))
    averaged = _Averaged(first, judge)
    alone = [averaged.add(load_trained(run, device=device, precision="fp32")) for run in runs]
    chosen = _greedily(alone, averaged, options.tell) if greedy else list(range(len(runs)))
    state, right = averaged.of(chosen)
    members = tuple(
        SoupMember(run.path, float(found.mean()), at in chosen)
        for at, (run, found) in enumerate(zip(runs, alone, strict=True))
    )
    folder = _written(
        _recipe_of(runs[chosen[0]], first, name),
        state,
        splits,
        options,
        counting=[runs[at] for at in chosen],
        flattered=flattered,
        tried=runs if greedy else None,
        val_top1=None if splits.val is None else float(right.mean()),
    )
    best = max(range(len(runs)), key=lambda at: members[at].top1)
    made = Soup(
        run=folder.path,
        members=members,
        greedy=greedy,
        split=judge.split,
        images=len(judge.chosen),
        top1=float(right.mean()),
        against_best=compare_images(right, alone[best]),
    )
    _warn_of_a_loss(made, options.tell)
    return made


def _opened(references: Sequence[Any], options: Options) -> list[RunFolder]:
    """The runs, each once.

    Raises:
        UsageError: Fewer than two, or one twice.
    """
    named = [run_of(each) for each in listed(references)]
    runs = [open_run(each, runs_dir=options.runs_dir) for each in named]
    if len(runs) < 2:
        raise UsageError("a mean is of two runs or more", hint="name each: distill soup NAME/001 NAME/002")
    places = [run.path.resolve() for run in runs]
    for at, place in enumerate(places):
        if place in places[:at]:
            raise UsageError(f"{runs[at].path} is named twice", hint="a name is its latest run: NAME/001 is the first")
    return runs


class _Averaged:
    """Means of some of several networks, and what they answer."""

    def __init__(self, first: Trained, judge: Judge) -> None:
        self._states: list[dict[str, Tensor]] = []
        self._first, self._judge = first, judge

    def add(self, network: Trained) -> np.ndarray:
        """Take a network's weights in, and say which images it answers right alone."""
        state = network.module.state_dict()
        self._states.append({key: tensor.detach().to("cpu", copy=True) for key, tensor in state.items()})
        return self._judge.right(network)

    def of(self, chosen: Sequence[int]) -> tuple[dict[str, Tensor], np.ndarray]:
        """The mean of these, and which images it answers right."""
        state = mean_weights([self._states[at] for at in chosen])
        self._first.module.load_state_dict(state)
        return state, self._judge.right(self._first)


def _greedily(alone: Sequence[np.ndarray], averaged: _Averaged, tell: Tell) -> list[int]:
    """Which of the runs count (the paper's recipe 1), the best one first."""
    order = sorted(range(len(alone)), key=lambda at: -int(alone[at].sum()))  # of equals, the one named first
    chosen, most = order[:1], int(alone[order[0]].sum())
    for at in order[1:]:
        found = int(averaged.of([*chosen, at])[1].sum())
        if found >= most:
            chosen, most = [*chosen, at], found
    if len(chosen) == 1:
        tell(Note("no other run makes the best one better: the mean is of that one alone", "warning"))
    return sorted(chosen)


# What has a mean


def _require_alike(first: Trained, other: Trained) -> None:
    """Refuse two runs whose weights have no mean, or whose mean could not be judged.

    Raises:
        UsageError: They are of different networks, or of different data.
    """
    pair = f"{first.place} and {other.place}"
    if first.classes != other.classes:
        raise UsageError(f"{pair} know different classes", hint="a mean is of runs of the same data")
    data = [each.run.info.data or {} for each in (first, other)]
    for key, what in (("fingerprint", "trained"), ("val_fingerprint", "validated")):
        if len({each.get(key) for each in data}) > 1:
            raise UsageError(
                f"{pair} were {what} on different images",
                hint="a mean is of runs of the same data, split alike: what validates one may have taught the other",
            )
    shapes = [{name: tuple(each.shape) for name, each in one.module.state_dict().items()} for one in (first, other)]
    for one, two in ((_network(first), _network(other)), shapes):
        if (difference := _difference(one, two)) is not None:
            raise UsageError(f"{pair} are different networks: {difference}", hint="a mean is of runs of one network")


def _network(trained: Trained) -> dict[str, Any]:
    """What decides a network's answers beside its weights, by the names of a recipe."""
    spec = without_weights(trained.recipe.model)
    own = {f"model.{key}": value for key, value in spec.model_dump().items() if key not in _TRAINED_AS}
    normalize = {"mean": trained.normalize.mean, "std": trained.normalize.std}
    return own | {"model.normalize": normalize, "data.image_size": trained.image_size}


def _difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """The first key in which two differ, with both values; None where they are alike."""
    for key in dict.fromkeys((*one, *other)):
        if one.get(key) != other.get(key):
            return " and ".join((f"{key} {_shown(one.get(key))}", _shown(other.get(key))))
    return None


def _shown(value: object) -> str:
    return cut(brief(value), _LONGEST)


def _check_sizes(runs: Sequence[RunFolder], tell: Tell, *, greedy: bool) -> None:
    """Say at which size the mean is asked, where its runs have several.

    Raises:
        UsageError: ``greedy``: who is chosen first decides on the size.
    """
    sizes = [run.recipe().model.input_size for run in runs]
    if len(set(sizes)) == 1:
        return
    others = ", ".join(map(str, sizes[1:]))
    if greedy:
        raise UsageError(
            f"--greedy holds runs of one model.input_size against each other: these have {sizes[0]}, {others}",
            hint="without it every run counts alike, at the first one's size",
        )
    tell(
        Note(
            f"the mean is asked at {sizes[0]} pixels, as {runs[0].path} is; the others at {others}: name first whose "
            "size it should have"
        )
    )


# What is written


def _written(
    recipe: Recipe,
    state: dict[str, Tensor],
    splits: Splits,
    options: Options,
    *,
    counting: Sequence[RunFolder],
    flattered: Sequence[str],
    tried: Sequence[RunFolder] | None,
    val_top1: float | None,
) -> RunFolder:
    """The new run.

    Args:
        counting: The runs in the mean.
        flattered: Lines on images that judge the mean and taught what is behind it.
        tried: All that it was chosen from, in their order; None where nothing was chosen.
    """
    context = prepare(recipe, replace(options, init_from=None, devices=1), splits=splits)
    teacher = counting[0].info.teacher
    places = [str(run.path) for run in counting]
    made_from = {SOUP_OF: places} | ({} if tried is None else {SOUP_TRIED: [str(run.path) for run in tried]})
    with holding_weights(context, splits, state, teacher=teacher, made_from=made_from) as run:
        caution(run, [*flattered, *_cautions(counting)], options.tell)
        line = f"the mean of the weights of {', '.join(places)}"
        finish_untrained(run, teacher=teacher, val_top1=val_top1, line=line)
    return run


def _recipe_of(run: RunFolder, network: Trained, name: str | None) -> Recipe:
    """A run's recipe, complete in itself: nothing to fetch."""
    recipe = taught_as_before(run)
    model = resolved_model(without_weights(recipe.model), network.normalize)
    return recipe.model_copy(update={"name": name or derived_name(recipe.name, "_soup"), "model": model})


def _cautions(runs: Sequence[RunFolder]) -> Iterator[str]:
    """What flatters its runs, and what of the mean is not as its recipe says."""
    for run in runs:
        known = run.info.extra.get("cautions")
        yield from (f"{run.path}: {line}" for line in (known if isinstance(known, list) else ()))
    teachers = {teachers_weights(run.info.teacher or {}) for run in runs}
    if len(teachers) > 1:
        yield f"its runs learned from {len(teachers)} different teachers; its recipe names the first one's"


def _warn_of_a_loss(made: Soup, tell: Tell) -> None:
    worst = min(each.top1 for each in made.members if each.used)
    if made.top1 < worst:
        tell(
            Note(
                f"the mean answers {percent(made.top1)} % of these images right, the worst of its runs "
                f"{percent(worst)} %: a mean is worth something for runs that began with the same weights "
                "(--init-from)",
                "warning",
            )
        )
