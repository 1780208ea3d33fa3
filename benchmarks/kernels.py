"""Whether this CPU's kernels get every layer right that a bundled recipe, student or teacher has, and narrow ones.

Usage:
    python -m benchmarks.kernels --json > docs/results/kernels.json

Each distinct convolution and linear layer goes forward and backward in processes of its own, in both memory formats, on
one thread and two, with oneDNN held to SSE4.1, to AVX2, and as it is, in fp32 (and bf16 where the CPU has it),
against float64. It takes long on two cores: ``--journal FILE`` keeps what was found and goes on from there, and
``--report`` prints what is there. Several processes may share the work by ``--only`` and ``--isa``, each with a journal
of its own; their lines together are one journal.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported

import argparse
import datetime
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import nn

from distill.data.datasets import num_classes
from distill.devices import resolve_precision, unsafe_layers
from distill.devices.layer_error import KernelConfig, LayerTest, LayerTestResult
from distill.devices.layers import Layer, layers_of
from distill.devices.probe import probe
from distill.errors import DistillError
from distill.models import meta_model
from distill.recipe import bundled_recipes, load_recipe
from distill.recipe.model_specs import ModelSpec

__all__ = ["Case", "bundled_cases", "is_known", "main", "narrow_cases", "summary", "trials_of"]

ISAS = ("SSE41", "AVX2", None)
THREADS = (1, 2)
EVERY_COUNT = range(1, 34)  # at and between multiples of a block of 4, 8 and 16
SOME_COUNTS = (2, 6, 9, 12, 17, 31)
MAX_MACS = 5e7  # of one forward pass
OTHER_BATCHES = (33, 5)  # odd ones: a batch that threads share evenly hides some overruns
NARROW_BATCHES = (64, 33, 16, 5)
NARROW = ("narrow",)
HANGS_AFTER_S = 10.0
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Case:
    """A layer, where it comes from, and with how many inputs at once it is tried."""

    layer: Layer
    batches: tuple[int, ...]
    of: tuple[str, ...]


# What is tried


def bundled_cases() -> list[Case]:
    """Each distinct layer of the networks that recipes name and that builders make by themselves."""
    found: dict[Layer, tuple[int, list[str]]] = {}
    for name, network, side, batch in _networks():
        for one in layers_of(network, side):
            largest, names = found.setdefault(one.layer, (0, []))
            found[one.layer] = (max(largest, batch * one.per_image), [*names, name])
    return [Case(layer, _batches(layer, batch), tuple(names)) for layer, (batch, names) in found.items()]


def _networks() -> Iterable[tuple[str, nn.Module, int, int]]:
    """Name, network without weights, side of its images, and batch."""
    for name, path in bundled_recipes().items():
        recipe = load_recipe(path)
        try:
            classes = num_classes(recipe.data)
        except DistillError:  # counted in a folder that is not here
            classes = 10
        yield name, meta_model(recipe.model, classes), recipe.model.input_size, recipe.train.batch_size
    for source in ("students", "teachers"):  # the tests' own, in no recipe
        spec = TypeAdapter(ModelSpec).validate_python({"source": source, "name": "tiny"})
        yield f"{source}.tiny", meta_model(spec, 10), 32, 128


def _batches(layer: Layer, batch: int) -> tuple[int, ...]:
    most = max(int(MAX_MACS / layer.macs), 2)
    return tuple(dict.fromkeys(min(each, most) for each in (batch, *OTHER_BATCHES)))


def narrow_cases() -> list[Case]:
    """Convolutions of few input channels: strided 1x1 ones at every count up to two blocks, others at some."""
    layers = [
        _conv(channels, out, stride=(2, 2), bias=bias) for channels in EVERY_COUNT for out, bias in ((8, 0), (32, 1))
    ]
    for some in SOME_COUNTS:
        layers += [
            _conv(some, 8, stride=(2, 2), side=15),
            _conv(some, 8, stride=(3, 1)),
            _conv(some, 8, stride=(1, 1)),
            _conv(some, 8, stride=(2, 2), kernel=3),
            _conv(2 * some, 16, stride=(2, 2), groups=2),
            _conv(some, some, stride=(2, 2), kernel=3, groups=some),
            _conv(some, some, stride=(2, 2), groups=some),
        ]
    return [Case(layer, NARROW_BATCHES, NARROW) for layer in dict.fromkeys(layers)]


def _conv(
    i: int, o: int, *, stride: tuple[int, int], kernel: int = 1, side: int = 16, groups: int = 1, bias: int = 0
) -> Layer:
    weight, padding = (o, i // groups, kernel, kernel), (kernel // 2, kernel // 2)
    return Layer("conv2d", (i, side, side), weight, bool(bias), stride, padding, (1, 1), groups)


def trials_of(case: Case, isas: Sequence[str | None]) -> list[LayerTest]:
    """Every way in which the layer is tried."""
    formats = (True, False) if len(case.layer.input) == 3 else (False,)
    settings = [KernelConfig(form, threads, "fp32", isa) for isa in isas for form in formats for threads in THREADS]
    if None in isas and case.of != NARROW and resolve_precision("bf16", _CPU).warning is None:
        settings += [KernelConfig(form, threads, "bf16") for form in formats for threads in THREADS]
    if is_known(case.layer):  # where the backward pass crashes nothing is learned of the forward pass
        settings += [KernelConfig(True, threads, "fp32", isa, trains=False) for isa in isas for threads in THREADS]
    return [LayerTest(case.layer, case.batches, setting) for setting in settings]


def is_known(layer: Layer) -> bool:
    """Whether distill keeps the layer from channels-last already."""
    if layer.kind != "conv2d":
        return False
    (o, i, height, width), (down, across) = layer.weight, layer.stride
    with torch.device("meta"):
        module = nn.Conv2d(i * layer.groups, o, (height, width), stride=(down, across), groups=layer.groups)
    return bool(unsafe_layers(module, _CPU))


# What was found


class Journal:
    """Verdicts by trial, kept in a file as they come, so that hours of work can be taken up again."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.verdicts: dict[str, dict[str, Any]] = {}
        if path is not None and path.exists():
            lines = (json.loads(line) for line in path.read_text().splitlines() if line.endswith("}"))
            self.verdicts = {line.pop("trial"): line for line in lines}

    def add(self, trial: LayerTest, verdict: LayerTestResult) -> None:
        self.verdicts[key(trial)] = asdict(verdict)
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps({"trial": key(trial)} | asdict(verdict)) + "\n")


def key(trial: LayerTest) -> str:
    """A trial's name, the same in every process."""
    return json.dumps(asdict(trial), sort_keys=True)


def try_all(cases: Sequence[Case], isas: Sequence[str | None], journal: Journal) -> None:
    """Try what the journal lacks, one instruction set after another."""
    trials = [
        trial for isa in (*isas,) for case in cases for trial in trials_of(case, isas) if trial.setting.isa == isa
    ]
    wanted = [trial for trial in trials if key(trial) not in journal.verdicts]
    done: Counter[str] = Counter()

    def note(trial: LayerTest, verdict: LayerTestResult) -> None:
        journal.add(trial, verdict)
        done["all"] += 1
        if verdict.outcome != "right" or done["all"] % 100 == 0:
            said = f"{verdict.outcome} {verdict.error or ''} {verdict.tensor or ''} {verdict.detail or ''}".strip()
            print(f"{done['all']}/{len(wanted)}  {trial.layer} | {trial.setting} | {said}", file=sys.stderr, flush=True)

    probe(wanted, on_verdict=note, seconds=HANGS_AFTER_S)


def summary(cases: Sequence[Case], isas: Sequence[str | None], journal: Journal) -> dict[str, Any]:
    """Counts by setting, of how many that are wanted, and every finding with its layer."""
    counts: dict[KernelConfig, Counter[str]] = {}
    worst: dict[KernelConfig, float] = {}
    wanted: Counter[KernelConfig] = Counter()
    findings = []
    for case in cases:
        for trial in trials_of(case, isas):
            setting = trial.setting
            wanted[setting] += 1
            verdict = journal.verdicts.get(key(trial))
            if verdict is None:
                continue
            counts.setdefault(setting, Counter())[verdict["outcome"]] += 1
            if verdict["outcome"] == "right":
                worst[setting] = max(worst.get(setting, 0.0), verdict["error"])
            else:
                known = is_known(case.layer) and setting.channels_last and setting.trains
                findings.append({"layer": str(case.layer), "setting": str(setting), "known": known} | verdict)
    rows = [
        asdict(setting) | {"wanted": wanted[setting], **counts[setting], "worst_right": worst.get(setting)}
        for setting in sorted(counts, key=str)
    ]
    layers = [{"layer": str(case.layer), "batches": case.batches, "of": case.of} for case in cases]
    return {"rows": rows, "findings": findings, "layers": layers}


def onednn_version() -> str | None:
    """Of the oneDNN that torch was built with."""
    found = re.search(r"MKL-DNN v([\d.]+)", torch.__config__.show())
    return found[1] if found else None


def main(arguments: list[str] | None = None) -> int:
    """Tries everything; 1 where something is wrong that distill does not keep its networks from."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    parser.add_argument("--only", choices=("bundled", "narrow"), help="half of the layers")
    parser.add_argument("--isa", action="append", help="this ONEDNN_MAX_CPU_ISA alone; repeatable; native: no cap")
    parser.add_argument("--journal", type=Path, help="keep verdicts in this file, and go on from it")
    parser.add_argument("--report", action="store_true", help="try nothing: print what the journal holds")
    options = parser.parse_args(arguments)
    isas = [None if isa == "native" else isa for isa in options.isa] if options.isa else list(ISAS)
    cases = [] if options.only == "bundled" else narrow_cases()
    cases += [] if options.only == "narrow" else bundled_cases()
    journal = Journal(options.journal)
    if not options.report:
        try_all(cases, isas, journal)
    found = summary(cases, isas, journal)
    _print(options.json, found)
    return 0 if all(finding["known"] for finding in found["findings"]) else 1


def _print(as_json: bool, found: dict[str, Any]) -> None:
    from benchmarks.augment import environment

    if as_json:
        about = {"benchmark": "kernels", "date": datetime.date.today().isoformat(), **environment()}
        print(json.dumps(about | {"onednn": onednn_version()} | found, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{len(found['layers'])} layers")
    for column in ("setting", "of", "right", "wrong", "crashes", "hangs", "worst of the right"):
        table.add_column(column, justify="left" if column == "setting" else "right")
    names = ("channels_last", "threads", "precision", "isa", "trains")
    for row in found["rows"]:
        outcomes = (str(row.get(name, 0)) for name in ("wanted", "right", "wrong", "crashes", "hangs"))
        table.add_row(str(KernelConfig(*(row[name] for name in names))), *outcomes, f"{row['worst_right'] or 0:.1e}")
    Console().print(table)
    for finding in found["findings"]:
        print(
            "known" if finding["known"] else "NEW", finding["layer"], "|", finding["setting"], "|", finding["outcome"]
        )


if __name__ == "__main__":
    sys.exit(main())
