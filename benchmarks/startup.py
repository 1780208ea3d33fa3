"""What a student costs before its first step where its teacher's bank is complete, and how often the teacher is loaded.

``python -m benchmarks.startup [--json] [--before TREE] [--repeats 5]``

``TREE`` is a checkout of another version: both are measured in turn, each in processes of its own, on one thread. The
teacher is a ResNet-152 and the student ``r18_small``, on 57 synthetic images, so that what is seen is the teacher and
not the data. Measured is the CPU time of the process between the call and the first event of training, without what
importing takes.
"""

from __future__ import annotations

import os

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # read once, when torch is imported
os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import importlib
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
DATA = "data={name: synthetic, limit: 64, test_limit: 20}"
TEACHER = ("resnet152_cifar10_scratch", [DATA, "train.epochs=1", "train.batch_size=32", "optim.lr=1e-4"])
STUDENT = ("r18_small", [DATA, "train.epochs=1", "augment.views=1", "teacher.logits_dtype=float32"])
TINY = "model={source: students, name: tiny}"  # for trying this script out
FIGURES = ("loads", "hashes", "bank_opens", "cpu_s", "peak_mb")


class _Begun(BaseException):
    """Training would begin here."""


# In a process of one version


def _first(name: str, *modules: str) -> Any:
    """The first of these modules that this version has."""
    for module in modules:
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError:
            continue
    raise ModuleNotFoundError(f"{name}: none of {modules}")


def _counting(owner: Any, name: str) -> list[None]:
    """One entry for each call of ``owner.name`` from now on."""
    calls: list[None] = []
    real = getattr(owner, name)

    def count(*args: Any, **options: Any) -> Any:
        calls.append(None)
        return real(*args, **options)

    setattr(owner, name, count)
    return calls


def prepare(runs: Path, *, tiny: bool) -> None:
    """Train the teacher for an epoch, and store its answers."""
    from distill.pipeline import Options, build_bank, finetune_teacher
    from distill.recipe import load_recipe

    options, more = Options(runs_dir=runs, device="cpu", threads=1), [TINY] if tiny else []
    finetune_teacher(load_recipe(TEACHER[0], [*TEACHER[1], *more]), options=options)
    build_bank(load_recipe(STUDENT[0], [*STUDENT[1], *more, _taught(TEACHER[0])]), options=options)


def _taught(teacher: str) -> str:
    return f"teacher.run={teacher}"


def measure(runs: Path, *, seed: int, tiny: bool) -> dict[str, float]:
    """One student, up to its first step."""
    from distill.pipeline import Options, train_student
    from distill.recipe import load_recipe
    from distill.teaching.bank import Bank

    trained = _first("trained", "distill.models.trained", "distill.train.trained")
    calls = {"loads": _counting(trained, "build_model"), "hashes": _counting(trained, "state_sha256")}
    calls["bank_opens"] = _counting(Bank, "_check_files")
    more = [TINY] if tiny else []
    recipe = load_recipe(STUDENT[0], [*STUDENT[1], *more, _taught(TEACHER[0]), f"train.seed={seed}"])

    def listen(event: Any) -> None:
        if type(event).__name__ == "RunStarted":
            raise _Begun

    started = time.process_time()
    try:
        train_student(recipe, options=Options(runs_dir=runs, device="cpu", threads=1, on_event=listen))
    except _Begun:
        cpu = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {name: float(len(made)) for name, made in calls.items()} | {"cpu_s": cpu, "peak_mb": peak}


# Over versions


def _in(tree: Path, *arguments: str) -> str:
    """What this file prints when that version runs it."""
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, str(Path(__file__).resolve()), *arguments]
    done = subprocess.run(command, env=environment, cwd=tree, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{tree}: {' '.join(arguments)}\n{done.stderr}")
    return done.stdout


def compare(trees: dict[str, Path], *, repeats: int, tiny: bool) -> dict[str, list[dict[str, float]]]:
    """Measure every version ``repeats`` times, in turn."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in trees}
    small = ["--tiny"] if tiny else []
    with tempfile.TemporaryDirectory(prefix="distill-startup-") as folder:
        for name, tree in trees.items():
            _in(tree, "--prepare", f"{folder}/{name}", *small)
        for seed in range(repeats):
            for name, tree in trees.items():
                found[name].append(json.loads(_in(tree, "--measure", f"{folder}/{name}", "--seed", str(seed), *small)))
    return found


def summary(found: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """The median of each figure, the range of the CPU seconds, and their ratio where two versions were measured."""
    medians = {
        name: {figure: statistics.median(each[figure] for each in runs) for figure in FIGURES}
        for name, runs in found.items()
    }
    spent = {name: [each["cpu_s"] for each in runs] for name, runs in found.items()}
    versions = {name: medians[name] | {"cpu_s_range": [min(spent[name]), max(spent[name])]} for name in found}
    document: dict[str, Any] = {"versions": versions, "n": len(next(iter(found.values())))}
    if "before" in medians:
        document["cpu_ratio"] = medians["before"]["cpu_s"] / medians["now"]["cpu_s"]
    return document


def _machine() -> dict[str, Any]:
    import torch

    from distill.devices import describe_device

    named = describe_device(torch.device("cpu"))
    return {"device": named, "cores": os.cpu_count(), "python": platform.python_version(), "torch": torch.__version__}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a line for each version or one JSON document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--before", type=Path, metavar="TREE", help="a checkout of another version")
    parser.add_argument("--repeats", type=int, default=5, metavar="N")
    parser.add_argument("--tiny", action="store_true", help="tiny networks: to try the script out")
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.prepare:
        return prepare(given.prepare, tiny=given.tiny)
    if given.measure:
        return print(json.dumps(measure(given.measure, seed=given.seed, tiny=given.tiny)))
    trees = ({"before": given.before.resolve()} if given.before else {}) | {"now": HERE}
    document = summary(compare(trees, repeats=given.repeats, tiny=given.tiny)) | {"machine": _machine()}
    if given.json:
        return print(json.dumps(document, indent=2))
    for name, medians in document["versions"].items():
        print(name, *(f"{figure} {value:.3g}" for figure, value in medians.items() if figure in FIGURES))


if __name__ == "__main__":
    main()
