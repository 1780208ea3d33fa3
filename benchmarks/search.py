"""A search at ResNet-20's measured latency on 10,000 images of CIFAR-10, beside that network, uniform width and chance.

``python -m benchmarks.search --teacher RUN [--data data] [--runs runs] [--out DIR] [--epochs 30] [--evaluations 12]``

The budget is what an untrained ResNet-20 takes for one image, exported to ONNX, in ONNX Runtime on one thread, with
three hundredths for noise. All learn from one bank of the teacher's answers, by one recipe; finalists have three
seeds. Stopped at any moment, the same command goes on. It takes hours; ``--evaluations 4 --epochs 3 --limit 600`` takes
minutes and shows nothing but that it runs. Printed at the end, and kept in ``OUT/search.json`` and ``OUT/search.md``:
what was found, what it cost, and on which machine.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read once, when torch is imported

import argparse
import io
import json
import sys
from pathlib import Path

from rich.console import Console

import distill
from distill.cli.progress import ProgressPrinter
from distill.data.splits import load_splits
from distill.devices import describe_device, library_versions, resolve_device
from distill.errors import DistillError
from distill.files import write_atomically, write_json
from distill.pipeline import Options
from distill.recipe import Recipe, parse_recipe
from distill.report.search import search_table
from distill.results.search import SearchReport
from distill.searches import search
from distill.searches.bench import Bench, Target

RECIPE = """
schema_version: 1
name: resnet20_search
role: student
data: {name: cifar10, image_size: 32, val_fraction: 0.2, split_seed: 0}
augment: {crop_padding: 4, crop_fill: zero, hflip: 0.5}
model: {source: students, name: resnet, blocks: [3, 3, 3], channels: [16, 32, 64], strides: [1, 2, 2], input_size: 32}
teacher: {run: teacher}
objective: {kind: kd, ce_weight: 0.1, kd_weight: 0.9, temperature: 4.0}
optim: {name: sgd, lr: 0.1, momentum: 0.9, nesterov: true, weight_decay: 5e-4}
schedule: {kind: cosine, warmup_epochs: 1}
train: {batch_size: 128, seed: 0}
search: {depth: [[1, 4], [1, 4], [1, 4]], width: {min: 8, max: 256, multiple: 8}}
"""
NOISE = 1.03  # times ResNet-20's latency: what two timings of one network may differ by


def arguments() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", required=True, help="a finished run on CIFAR-10")
    parser.add_argument("--data", default="data", help="the folder that holds CIFAR-10")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--limit", type=int, default=10_000, help="training images, a fifth of them for validation")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--views", type=int, default=10, help="of each image that the bank answers")
    parser.add_argument("--precision", default="auto", help="of training, the same for every shape unless it is auto")
    parser.add_argument("--evaluations", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--max-drop", type=float, default=0.1)
    return parser.parse_args()


def recipe(asked: argparse.Namespace) -> Recipe:
    """ResNet-20 by its own name, taught."""
    changes = [
        f"data.root={json.dumps(asked.data)}",
        f"data.limit={asked.limit}",
        f"train.epochs={asked.epochs}",
        f"augment.views={min(asked.views, asked.epochs)}",
        f"train.precision={asked.precision}",
    ]
    return parse_recipe(RECIPE, source="benchmarks/search.py", overrides=changes)


def latency(own: Recipe, runs: Path) -> float:
    """Milliseconds of an untrained ResNet-20, as the search itself times it; kept where the search finds it."""
    target = Target("onnxruntime", 1, None, ("latency_b1_ms",))
    bench = Bench(own, load_splits(own.data), target, runs.parent / "searches" / "timings")
    return bench.confirmed(own).of("latency_b1_ms")


def markdown(report: SearchReport, resnet20_ms: float) -> str:
    """The table in a fence, and what it was measured with."""
    text = io.StringIO()
    Console(file=text, width=150, highlight=False, markup=False, emoji=False).print(search_table(report, 150))
    versions = ", ".join(f"{name} {version}" for name, version in library_versions("onnxruntime").items())
    head = f"ResNet-20 takes {resnet20_ms:.3f} ms here; {describe_device(resolve_device('cpu'))}; {versions}"
    lines = "\n".join(line.rstrip() for line in text.getvalue().splitlines())
    return f"{head}\n\n```text\n{lines}\n```\n"


def main() -> int:
    """Search, and write down what came of it."""
    asked = arguments()
    try:
        own = recipe(asked)
        resnet20_ms = latency(own, asked.runs)
        typed = ("python", "-m", "benchmarks.search", *sys.argv[1:])
        with ProgressPrinter() as printer:
            report = search(
                own,
                budgets={"latency_b1_ms": round(NOISE * resnet20_ms, 4)},
                teacher=asked.teacher,
                max_drop=asked.max_drop,
                evaluations=asked.evaluations,
                seeds=asked.seeds,
                options=Options(runs_dir=asked.runs, command=typed, on_event=printer),
            )
    except DistillError as error:
        print(f"error: {error.message}" + (f"\nhint:  {error.hint}" if error.hint else ""), file=sys.stderr)
        return error.exit_code
    asked.out.mkdir(parents=True, exist_ok=True)
    document = {"distill": distill.__version__, "resnet20_ms": resnet20_ms, "report": report.to_json()}
    write_json(asked.out / "search.json", document)
    text = markdown(report, resnet20_ms)
    write_atomically(asked.out / "search.md", text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
