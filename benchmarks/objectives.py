"""Every objective on one small study: the same student, teacher, budget and seeds, paired against ``kd``.

``python -m benchmarks.objectives WORK [--study digits|cifar100] [--seeds 3] [--kinds kd,dkd,...] [--out docs/results]``

Each run is a process of its own on one thread, so that its CPU seconds and its peak of memory are its own; what is
finished in ``WORK`` is kept, and the same command goes on. ``cifar100`` wants the data below ``--data``. Objectives
have the defaults of the recipe's schema, which are their papers', for other networks, data and budgets: a small study
ranks nobody.
"""

from __future__ import annotations

import os

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # read once, when torch is imported
os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["STUDIES", "Row", "main", "rows_of"]

_T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
_SUPERVISED = "supervised"


@dataclass(frozen=True)
class Study:
    """What all runs of a study share: recipes, and what is changed in both."""

    teacher: str
    student: str
    settings: tuple[str, ...]
    epochs: int
    about: str


STUDIES = {
    "digits": Study(
        "quickstart_teacher",
        "quickstart_student",
        ("data.val_fraction=0.0",),
        12,
        "scikit-learn's digits (16x16 RGB), quickstart_teacher to quickstart_student",
    ),
    "cifar100": Study(
        "resnet56_cifar10",
        "resnet20_cifar10",
        ("data.val_fraction=0.0", "data.limit=10000", "data.name=cifar100"),
        30,
        "10,000 training images of CIFAR-100, all test images, ResNet-56 to ResNet-20",
    ),
}


@dataclass(frozen=True)
class Row:
    """One objective.

    Attributes:
        top1: On the test set, by seed, fractions.
        cpu_s: Of a whole run, by seed; ``peak_mb`` likewise.
    """

    kind: str
    top1: tuple[float, ...]
    cpu_s: tuple[float, ...]
    peak_mb: tuple[float, ...]

    def against(self, other: Row) -> tuple[float, float | None]:
        """Mean of the paired differences to another's top-1, and half of its 95% t-interval; None of one seed."""
        differences = [a - b for a, b in zip(self.top1, other.top1, strict=True)]
        count = len(differences)
        if count not in _T_95:
            return statistics.mean(differences), None
        return statistics.mean(differences), _T_95[count] * statistics.stdev(differences) / count**0.5


# One run, in a process of its own


def _train_one(study: Study, kind: str, seed: int, work: Path, data: Path) -> dict[str, Any]:
    from distill import Options, evaluate, finetune_teacher, load_recipe, train_student
    from distill.runs import open_run

    settings = [
        *study.settings,
        f"train.epochs={study.epochs}",
        "train.threads=1",
        f"data.root={json.dumps(str(data))}",
    ]
    options = Options(runs_dir=work / "runs", device="cpu", threads=1)
    if kind == "teacher":
        finetune_teacher(load_recipe(study.teacher, [*settings, "name=teacher", "role=teacher"]), options=options)
        return {}
    base = load_recipe(study.student)
    taught = [] if kind == _SUPERVISED else [f"teacher={{run: {open_run('teacher', runs_dir=work / 'runs').path}}}"]
    changes = [
        *settings,
        "train.monitor=val_top1",
        f"name={kind}",
        f"train.seed={seed}",
        f"objective={{kind: {kind}}}",
        *taught,
    ]
    if kind == _SUPERVISED:
        changes += ["role=baseline", "teacher=null"]
    elif base.role != "student":
        changes += ["role=student"]
    recipe = load_recipe(study.student, changes)
    started = time.process_time()
    run = train_student(recipe, options=options).run
    spent, peak = time.process_time() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {"top1": evaluate(run, options=options).figures.test_top1, "cpu_s": spent, "peak_mb": peak}


def _in_a_process(arguments: argparse.Namespace, kind: str, seed: int) -> dict[str, Any]:
    file = arguments.work / "rows" / f"{kind}_{seed}.json"
    if not file.exists():
        command = [sys.executable, "-m", "benchmarks.objectives", str(arguments.work), "--one", kind, str(seed)]
        command += ["--study", arguments.study, "--data", str(arguments.data)]
        print(f"{kind}, seed {seed}", file=sys.stderr, flush=True)
        subprocess.run(command, check=True)
    return json.loads(file.read_text())


# All of them


def rows_of(found: dict[str, list[dict[str, Any]]]) -> list[Row]:
    """Rows in the order of ``found``, each of its runs by seed."""
    return [
        Row(kind, *(tuple(run[key] for run in runs) for key in ("top1", "cpu_s", "peak_mb")))
        for kind, runs in found.items()
    ]


def _table(rows: Sequence[Row], baseline: Row) -> str:
    lines = ["| objective | test top-1, mean ± sd | against `kd`, paired, 95% | CPU time, `kd` = 1 | peak memory, MB |"]
    lines.append("|---|---|---|---|---|")
    for row in rows:
        spread = f" ± {100 * statistics.stdev(row.top1):.2f}" if len(row.top1) > 1 else ""
        mean, half = row.against(baseline)
        delta = "" if row is baseline else f"{100 * mean:+.2f}" + ("" if half is None else f" ± {100 * half:.2f}")
        time_ratio = statistics.mean(row.cpu_s) / statistics.mean(baseline.cpu_s)
        lines.append(
            f"| `{row.kind}` | {100 * statistics.mean(row.top1):.2f}%{spread} | {delta} | {time_ratio:.2f} | "
            f"{statistics.mean(row.peak_mb):,.0f} |"
        )
    return "\n".join(lines)


def _document(study: Study, rows: Sequence[Row], seeds: int) -> str:
    import torch

    from distill.devices import describe_device, library_versions

    baseline = next(row for row in rows if row.kind == "kd")
    machine = describe_device(torch.device("cpu"))
    versions = ", ".join(f"{name} {version}" for name, version in library_versions().items())
    limits = (
        f"One pair of networks, one data set, a short training, {seeds} seeds, no setting tuned for any of them: the "
        "defaults are those of papers with other networks and longer trainings. An interval that holds 0 says that "
        "this study cannot tell the two apart; it ranks no methods. CPU time is a whole run's, the bank's or the live "
        "teacher's answers included."
    )
    return f"""# Objectives

{study.about}: {study.epochs} epochs, seeds 0 to {seeds - 1}, one teacher for all, the last epoch, no validation images.
Each objective has the defaults of the recipe's schema, alone beside cross-entropy. One thread of {machine}; {versions}.

{_table(rows, baseline)}

**Limits.** {limits}

`python -m benchmarks.objectives WORK --seeds {seeds}` makes it again.
"""


def main(arguments: list[str] | None = None) -> None:
    """Train what is missing, print the document, and write objectives.md and .json where ``--out`` says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.objectives", description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path, help="where runs are kept")
    parser.add_argument("--study", choices=STUDIES, default="digits")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--kinds", help="comma-separated (default: all)")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, help="folder for objectives.md and objectives.json")
    parser.add_argument("--one", nargs=2, metavar=("KIND", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    study = STUDIES[options.study]
    if options.one:
        kind, seed = options.one[0], int(options.one[1])
        row = _train_one(study, kind, seed, options.work, options.data)
        (options.work / "rows").mkdir(parents=True, exist_ok=True)
        (options.work / "rows" / f"{kind}_{seed}.json").write_text(json.dumps(row) + "\n")
        return
    from distill.objectives import OBJECTIVES

    kinds = options.kinds.split(",") if options.kinds else [_SUPERVISED, *OBJECTIVES]
    _in_a_process(options, "teacher", 0)
    found = {
        kind: [_in_a_process(options, kind, seed) for seed in range(options.seeds)]
        for kind in dict.fromkeys(["kd", *kinds])
    }
    document = _document(study, rows_of(found), options.seeds)
    print(document)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "objectives.md").write_text(document)
        (options.out / "objectives.json").write_text(
            json.dumps({"study": options.study, "rows": found}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
