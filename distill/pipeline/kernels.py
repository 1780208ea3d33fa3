"""Whether this machine's kernels get a recipe's network right: asked of each layer, before anything is trained."""

from __future__ import annotations

import itertools
import platform
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from distill.data.datasets import num_classes
from distill.devices import (
    describe_device,
    library_versions,
    resolve_device,
    resolve_precision,
    threads,
    unsafe_layers,
    usable_cores,
)
from distill.devices.layer_error import KernelConfig, LayerTest, LayerTestResult, Outcome, Precision
from distill.devices.layers import Pass, layers_of
from distill.devices.probe import probe
from distill.errors import DistillError
from distill.events import Note, StageProgress
from distill.models import meta_model
from distill.pipeline.context import Options
from distill.pipeline.resolve import resolve_train
from distill.pipeline.threads import ProcessLayout
from distill.recipe import Recipe, load_recipe
from distill.report.kernel_rows import KernelCheck, KernelRow, KernelTrial, worst

__all__ = ["check_kernels"]

_STAGE = "trying layers"
_CPU = torch.device("cpu")
_USUAL_CLASSES = 10  # where they would be counted in a folder that is not here
_MAX_MACS = 3e8  # of one forward pass
_OTHER_BATCHES = (33, 5)  # odd ones: a batch that threads share evenly hides some overruns
_HANGS_AFTER_S = 10.0
_OLDER_ISA = "AVX"  # oneDNN's kernels of before AVX2
_X86 = ("x86_64", "amd64")


def check_kernels(recipe: Recipe | str | Path, *, options: Options | None = None) -> KernelCheck:
    """Test every distinct layer of a recipe's network on this CPU, forward and backward, against float64.

    Each is tested as a run would compute it (memory format, threads, precision) and in other ways: in the other format,
    on one thread (or one per core), in bf16 where the CPU has it and, where something is wrong, with oneDNN's older
    kernels. All tests run in separate processes, which receive only shapes; a crash or hang there is a finding.

    Raises:
        RecipeError, UsageError: An invalid recipe, or settings that are not available.
        RunError: A process cannot be started.

    Example:
        >>> check_kernels("quickstart_student").is_right  # on this processor
        True
    """
    started = time.monotonic()
    options = options or Options()
    recipe = load_recipe(recipe)
    if (device := resolve_device(options.device)).type != "cpu":
        options.tell(Note(f"this run would compute on {device}; its layers are tried as on this machine's CPU"))
    classes = _classes(recipe)
    layout = ProcessLayout(threads=options.threads)
    train, _ = resolve_train(recipe, _CPU, num_classes=classes, tell=options.tell, layout=layout)
    network = meta_model(recipe.model, classes)
    kept = {unsafe.name for unsafe in unsafe_layers(network, _CPU)}
    compiled = train.compile is not False and not kept  # inductor lays images out as channels-last
    precision: Precision = "bf16" if train.precision == "bf16" else "fp32"
    own = KernelConfig(train.channels_last is True or compiled, train.thread_count or threads(), precision)
    tried = _Tried(own, layers_of(network, recipe.model.input_size), kept, _batch(recipe), options)
    tried.take([own, *_other_ways(own)])
    if tried.outcome(own) != "right" and platform.machine().lower() in _X86:
        tried.take([replace(own, isa=_OLDER_ISA)])
    return KernelCheck(
        recipe=recipe.name,
        device=describe_device(_CPU),
        channels_last=own.channels_last,
        threads=own.threads,
        precision=own.precision,
        heap_check=tried.heap_check,
        layers=tuple(tried.rows()),
        versions=library_versions(),
        seconds=time.monotonic() - started,
        set=tried.remedy(),
    )


def _classes(recipe: Recipe) -> int:
    try:
        return num_classes(recipe.data)
    except DistillError:
        return _USUAL_CLASSES


def _batch(recipe: Recipe) -> int:
    """Of one pass of the training loop."""
    return max(recipe.train.batch_size // recipe.train.accumulate, 2)


def _other_ways(own: KernelConfig) -> list[KernelConfig]:
    other_format = replace(own, channels_last=not own.channels_last)
    ways = [other_format]
    other_threads = 1 if own.threads > 1 else usable_cores()
    if other_threads != own.threads:
        ways += [replace(way, threads=other_threads) for way in (own, other_format)]
    if own.precision == "bf16":
        ways.append(replace(own, precision="fp32"))
    elif resolve_precision("bf16", _CPU).warning is None:
        ways.append(replace(own, precision="bf16"))
    return ways


def _change(own: KernelConfig, other: KernelConfig) -> str:
    """What to set to compute in the other way."""
    change = []
    if other.isa != own.isa:
        change.append(f"ONEDNN_MAX_CPU_ISA={other.isa} in the environment")
    if other.channels_last != own.channels_last:
        change.append(f"--set train.channels_last={str(other.channels_last).lower()}")
    if other.precision != own.precision:
        change.append(f"--set train.precision={other.precision}")
    if other.threads != own.threads:
        change.append(f"--threads {other.threads}")
    return " ".join(change)


class _Tried:
    """The layers of a network, tried in several ways.

    Args:
        own: How the run would compute.
        kept: The modules that get contiguous images whatever the run's format is.
        batch: Of one pass of the training loop.
    """

    def __init__(
        self, own: KernelConfig, passes: tuple[Pass, ...], kept: set[str], batch: int, options: Options
    ) -> None:
        self.own, self.passes, self.options = own, passes, options
        self.kept = [bool(kept.intersection(each.names)) for each in passes]
        self.batches = [_batches(each, batch) for each in passes]
        self.ways: list[KernelConfig] = []
        self.verdicts: list[dict[KernelConfig, LayerTestResult]] = [{} for _ in passes]
        self.heap_check = False

    def take(self, ways: list[KernelConfig]) -> None:
        """Try what these ways ask for and no other did."""
        self.ways += ways
        places, trials = [], []
        for place, one in enumerate(self.passes):
            wanted = {setting for way in ways for setting in self.settings(place, way)} - self.verdicts[place].keys()
            for setting in sorted(wanted, key=str):
                places.append(place)
                trials.append(LayerTest(one.layer, self.batches[place], setting))
        count = itertools.count(1)

        def tell(*_: object) -> None:
            self.options.tell(StageProgress(_STAGE, next(count), len(trials)))

        result = probe(trials, seconds=_HANGS_AFTER_S, on_verdict=tell)
        for place, trial, verdict in zip(places, trials, result.verdicts, strict=True):
            self.verdicts[place][trial.setting] = verdict
        self.heap_check = self.heap_check or result.heap_check

    def settings(self, place: int, way: KernelConfig) -> tuple[KernelConfig, ...]:
        """Training, and classifying, which is channels-last and fp32 in every run."""
        has_format = len(self.passes[place].layer.input) == 3
        trains_so = way.channels_last and has_format and not (self.kept[place] and way == self.own)
        classifies = replace(way, channels_last=has_format, precision="fp32", trains=False)
        return (replace(way, channels_last=trains_so), classifies)

    def outcome(self, way: KernelConfig, place: int | None = None) -> Outcome:
        """The worst of a layer, or of all of them."""
        places = range(len(self.passes)) if place is None else [place]
        return worst(self.verdicts[each][setting].outcome for each in places for setting in self.settings(each, way))

    def remedy(self, place: int | None = None) -> str | None:
        """What to set so that a layer, or all of them, are right; the first that was tried."""
        if self.outcome(self.own, place) == "right":
            return None
        helps = (way for way in self.ways if self.outcome(way, place) == "right")
        return next((_change(self.own, way) for way in helps), None)

    def rows(self) -> Iterator[KernelRow]:
        for place, one in enumerate(self.passes):
            used = self.settings(place, self.own)
            trials = (KernelTrial(setting in used, setting, found) for setting, found in self.verdicts[place].items())
            yield KernelRow(
                names=one.names,
                layer=str(one.layer),
                batches=self.batches[place],
                trials=tuple(sorted(trials, key=lambda trial: not trial.used)),
                set=self.remedy(place),
                kept_contiguous=self.kept[place],
            )


def _batches(one: Pass, batch: int) -> tuple[int, ...]:
    """The run's own batch, or as much of it as takes seconds, and two odd ones."""
    most = max(int(_MAX_MACS / one.layer.macs), 2)
    wanted = (batch * one.per_image, *_OTHER_BATCHES)
    return tuple(dict.fromkeys(min(each, most) for each in wanted))
