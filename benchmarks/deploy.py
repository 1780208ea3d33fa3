"""How fast a network is as it ships: eager, compiled, ONNX Runtime in fp32 and int8, cut to half, all in one run.

``python -m benchmarks.deploy [--json] [--out DIR] [--networks r18_small,...] [--run RUN --files FILE ...]``

Networks of recipes have random weights: their rows are about speed alone. A trained run and its exported files (those
of ``distill compress`` are in ``compressed/<name>/exports``) stand beside them with the test accuracy measured on
each. One thread; all rows take turns, round by round. Files are timed from bytes to logits, networks from normalised
images. ``ONEDNN_MAX_CPU_ISA=AVX2`` caps torch's kernels to what a CPU without AVX-512 has; ONNX Runtime does not heed
it.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read once, when torch is imported

import argparse
import copy
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import distill
from distill.compression.choose import time_in_turn
from distill.compression.quantize import SCHEMES, quantize_model
from distill.devices import channels_last, describe_device, library_versions, using_threads
from distill.errors import DistillError
from distill.evaluation.assess import assess
from distill.evaluation.cost import model_cost
from distill.evaluation.latency import measure_latency
from distill.models import build_model, build_normalize
from distill.models.deployed import Deployed
from distill.models.normalize import Normalize
from distill.models.onnx_metadata import FileAbout
from distill.models.onnx_open import on_bytes, open_onnx, session
from distill.models.onnx_write import to_onnx
from distill.models.trained import load_trained
from distill.recipe import load_recipe
from distill.runs import open_run

CPU = torch.device("cpu")
BATCHES = (1, 32)
MULTIPLES = (8, 16, 32)
CALIBRATION = 64  # random images: a scheme's speed does not depend on what it is calibrated on


@dataclass(frozen=True)
class Row:
    """One way of running one network.

    Attributes:
        network: The recipe or run; ratios are to its eager row.
        runtime: What computes it, and in which arithmetic and memory format.
        cut: Whether it was cut to at most half of the multiply-accumulates.
        macs: Multiply-accumulates of one image.
        multiple: What the widths of a cut network are multiples of: which one is fastest depends on the kernels.
        test_top1: Measured on this very row; None for random weights.
    """

    network: str
    name: str
    runtime: str
    cut: bool
    params: int
    size_mb: float
    macs: int | None = None
    multiple: int | None = None
    scheme: str = ""
    test_top1: float | None = None
    latency_b1_ms: float | None = None
    latency_b32_ms: float | None = None
    ratio_to_eager_b1: float | None = None
    ratio_to_eager_b32: float | None = None


@dataclass(frozen=True)
class Way:
    """A row, what computes it, and the side of the images that it takes."""

    row: Row
    forward: Callable[[torch.Tensor], Any]
    side: int


def note(text: str) -> None:
    """On stderr: stdout may be a document."""
    print(text, file=sys.stderr, flush=True)


# One network, in all ways


def ways_of_recipe(recipe: str, *, compiled: bool) -> Iterator[Way]:
    """A recipe's network with random weights, whole and cut to half, to widths of each multiple."""
    loaded = load_recipe(recipe)
    network = build_model(loaded.model, num_classes=10).eval().requires_grad_(False)
    normalize = build_normalize(loaded.model, mean=(0.5,) * 3, std=(0.25,) * 3)
    side = loaded.data.side
    yield from torch_ways(loaded.name, network, normalize, compiled=compiled)
    yield from onnx_ways(loaded.name, network, normalize, side)
    for multiple in MULTIPLES:
        half = cut_to_half(network, normalize.input_size, multiple)
        if half is not None:
            yield _eager(loaded.name, f"{loaded.name} half", half, normalize, multiple=multiple)
            yield from onnx_ways(loaded.name, half, normalize, side, multiple=multiple)


def torch_ways(name: str, network: nn.Module, normalize: Normalize, *, compiled: bool) -> Iterator[Way]:
    """Eager, eager in channels-last, and compiled."""
    eager = _eager(name, name, network, normalize)
    yield eager
    last = channels_last(copy.deepcopy(network))
    yield replace(eager, row=replace(eager.row, runtime="torch fp32 channels-last"), forward=last)
    if compiled and (forward := _compiled(network, normalize.input_size)) is not None:
        yield replace(eager, row=replace(eager.row, runtime="torch.compile fp32"), forward=forward)


def _eager(network: str, name: str, module: nn.Module, normalize: Normalize, *, multiple: int | None = None) -> Way:
    plain = copy.deepcopy(module).to(memory_format=torch.contiguous_format)
    cost = model_cost(plain, normalize.input_size)
    row = Row(network, name, "torch fp32", multiple is not None, cost.params, cost.size_mb, cost.macs, multiple)
    return Way(row, plain, normalize.input_size)


def _compiled(network: nn.Module, side: int) -> Callable[[torch.Tensor], Any] | None:
    """Compiled for each batch size before anything is timed; None where there is no compiler."""
    forward = torch.compile(copy.deepcopy(network), dynamic=False)
    try:
        with torch.inference_mode():
            for batch in BATCHES:
                forward(torch.zeros(batch, 3, side, side))
    except Exception as error:  # whatever of torch's parts or the C++ compiler failed
        note(f"torch.compile is left out: {str(error).strip().splitlines()[0][:160]}")
        return None
    return forward


def onnx_ways(
    name: str, network: nn.Module, normalize: Normalize, side: int, *, multiple: int | None = None
) -> Iterator[Way]:
    """ONNX Runtime in fp32, and in the int8 scheme that is fastest here."""
    cost = model_cost(network, normalize.input_size)
    classes = tuple(f"class {index}" for index in range(10))
    about = FileAbout(name, "student", classes, side, "0" * 64, "", cost.params, 0.0, version=distill.__version__)
    plain = to_onnx(Deployed(network, normalize, image_size=side).eval(), about)
    pixels = np.random.default_rng(0).integers(0, 256, (CALIBRATION, 3, side, side), dtype=np.uint8)
    quantised = {str(scheme): quantize_model(plain, pixels, scheme) for scheme in SCHEMES}
    timings = time_in_turn(quantised, side, threads=1)
    best = min(quantised, key=lambda scheme: timings[scheme].median_ms)
    for arithmetic, model, scheme in (("fp32", plain, ""), ("int8", quantised[best], best)):
        content = model.SerializeToString()
        row = Row(
            network=name,
            name=f"{name} half" if multiple else name,
            runtime=f"onnxruntime {arithmetic}",
            cut=multiple is not None,
            params=cost.params,
            size_mb=len(content) / 1e6,
            macs=cost.macs,
            multiple=multiple,
            scheme=scheme,
        )
        yield Way(row, on_bytes(session(content, threads=1, place=row.name), side), side)


def cut_to_half(network: nn.Module, side: int, multiple: int) -> nn.Module | None:
    """The network with at most half of its multiply-accumulates, as ``distill prune --macs 0.5 --multiple N`` cuts it.

    None, and a note, where it cannot be cut so.
    """
    from distill.compression.prune import find_cut

    most = model_cost(network, side).macs / 2
    try:
        cut = find_cut(
            network, side, criterion="l2", multiple=multiple, fits=lambda module: model_cost(module, side).macs <= most
        )
    except DistillError as error:
        note(f"not cut to multiples of {multiple}: {error.message}")
        return None
    if cut is None or cut.multiple != multiple:
        note(f"not cut to multiples of {multiple}: no such width fits")
        return None
    return cut.module.eval()


# A trained run


def ways_of_run(reference: str, files: Sequence[str], *, runs_dir: Path, compiled: bool) -> Iterator[Way]:
    """A run's network and the files that were made of it, each with its own test accuracy."""
    run = open_run(reference, runs_dir=runs_dir)
    trained = load_trained(run, device=CPU, precision="fp32")
    top1 = assess(run, device=CPU).result.top1
    for way in torch_ways(trained.name, trained.module, trained.normalize, compiled=compiled):
        yield replace(way, row=replace(way.row, test_top1=top1))
    for path in files:
        file = open_onnx(path, threads=1)
        row = Row(
            network=trained.name,
            name=file.name,
            runtime=file.runtime,
            cut=file.about.weights_sha256 != trained.sha256,
            params=file.about.params,
            size_mb=file.size_bytes / 1e6,
            scheme=file.about.scheme,
            test_top1=assess(file).result.top1,
        )
        yield Way(row, file.to_time(), file.image_size)


# All of them


def measure(ways: Sequence[Way], *, seconds: float) -> list[Row]:
    """Time all ways in turn."""
    keys = [str(index) for index in range(len(ways))]
    with using_threads(1):
        timings = measure_latency(
            {key: way.forward for key, way in zip(keys, ways, strict=True)},
            {key: (3, way.side, way.side) for key, way in zip(keys, ways, strict=True)},
            device=CPU,
            batch_sizes=BATCHES,
            seconds_per_model=seconds,
        )
    return with_ratios(
        [
            replace(way.row, latency_b1_ms=timings[key][1].median_ms, latency_b32_ms=timings[key][32].median_ms)
            for key, way in zip(keys, ways, strict=True)
        ]
    )


def with_ratios(rows: Sequence[Row]) -> list[Row]:
    """The rows with how many times faster than their network's first row, which is eager and whole, each is."""
    eager: dict[str, Row] = {}
    for row in rows:
        eager.setdefault(row.network, row)
    return [
        replace(
            row,
            ratio_to_eager_b1=_ratio(eager[row.network].latency_b1_ms, row.latency_b1_ms),
            ratio_to_eager_b32=_ratio(eager[row.network].latency_b32_ms, row.latency_b32_ms),
        )
        for row in rows
    ]


def _ratio(eager: float | None, own: float | None) -> float | None:
    return eager / own if eager and own else None


def document(rows: Sequence[Row]) -> dict[str, Any]:
    """The rows and what they were measured on."""
    return {
        "rows": [asdict(row) for row in rows],
        "threads": 1,
        "device": describe_device(CPU),
        "onednn_max_cpu_isa": os.environ.get("ONEDNN_MAX_CPU_ISA"),
        "versions": library_versions("onnx", "onnxruntime", "torch-pruning"),
    }


def table(rows: Sequence[Row]) -> Table:
    """For people."""
    found = Table(
        "name",
        "runtime",
        "widths",
        "MMACs",
        "params",
        "size, MB",
        "b1, ms",
        "times eager",
        "b32, ms",
        "times eager",
        "test top-1",
    )
    for row in rows:
        numbers = (row.latency_b1_ms, row.ratio_to_eager_b1, row.latency_b32_ms, row.ratio_to_eager_b32)
        top1 = "" if row.test_top1 is None else f"{row.test_top1:.2%}"
        cells = ("" if number is None else f"{number:.3g}" for number in numbers)
        widths = "" if row.multiple is None else f"of {row.multiple}"
        macs = "" if row.macs is None else f"{row.macs / 1e6:.0f}"
        found.add_row(row.name, row.runtime, widths, macs, f"{row.params:,}", f"{row.size_mb:.2f}", *cells, top1)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table or one JSON document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deploy", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write deploy.json there")
    parser.add_argument("--networks", default="r18_small,resnet20_cifar10", help="recipes, with random weights")
    parser.add_argument("--run", help="a trained run")
    parser.add_argument("--files", nargs="*", default=[], metavar="FILE", help="files that were made of it")
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR")
    parser.add_argument("--seconds", type=float, default=8.0, help="of timing for each row")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    given = parser.parse_args(arguments)
    ways: list[Way] = []
    for recipe in filter(None, given.networks.split(",")):
        note(f"making {recipe}")
        ways += ways_of_recipe(recipe, compiled=not given.no_compile)
    if given.run is not None:
        note(f"making {given.run}")
        ways += ways_of_run(given.run, given.files, runs_dir=given.runs, compiled=not given.no_compile)
    rows = measure(ways, seconds=given.seconds)
    found = json.dumps(document(rows), indent=2)
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "deploy.json").write_text(found + "\n", encoding="utf-8")
    if given.json:
        print(found)
    else:
        console = Console()
        console.print(table(rows), width=None if console.is_terminal else 140)


if __name__ == "__main__":
    main()
