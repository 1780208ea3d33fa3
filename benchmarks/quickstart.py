"""What the quickstart's recipes come to, with enough seeds to tell, on kernels that most CPUs have and on this one's.

``python -m benchmarks.quickstart --runs DIR [--out docs/results] [--seeds 16] [--only avx2,native]``

Each configuration (kernels, threads) is a process of its own with runs of its own: one teacher, and as many students
of each kind as seeds. Finished runs are kept and stopped ones go on, so that the same command given again does what is
left. The document holds every seed's test accuracy; a mean over seeds has Student's t interval, and the gain of being
taught is paired by seed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

TEACHER, SCRATCH, STUDENT = "quickstart_teacher", "quickstart_scratch", "quickstart_student"


@dataclass(frozen=True)
class Configuration:
    """How the runs are made.

    Attributes:
        isa: ``AVX2`` caps oneDNN's kernels to those of a CPU without AVX-512; ``native`` leaves them.
        threads: ``--threads``; None leaves it to the recipes, as ``distill quickstart`` does.
        seeds: The most that are trained of each student.
    """

    name: str
    isa: str
    threads: int | None
    seeds: int


CONFIGURATIONS = (
    Configuration("avx2", "AVX2", None, 1_000),
    Configuration("native", "native", None, 1_000),
    Configuration("avx2-2", "AVX2", 2, 4),  # the recipes fix one thread: this shows what --threads 2 would change
    Configuration("native-2", "native", 2, 4),
)


# In a process of its own


def work(configuration: Configuration, root: Path, seeds: int) -> dict[str, Any]:
    """Train what is missing, ask each run about the test images, and say how it went."""
    from distill.comparison import compare
    from distill.pipeline import Options

    options = Options(runs_dir=root, device="cpu", threads=configuration.threads)
    started = time.process_time()
    teacher = _ensure(TEACHER, 0, None, options)
    runs: dict[str, list[Path]] = {TEACHER: [teacher], SCRATCH: [], STUDENT: []}
    for seed in range(min(seeds, configuration.seeds)):
        for name in (SCRATCH, STUDENT):
            runs[name].append(_ensure(name, seed, teacher, options))
            print(f"{configuration.name}: {name}, seed {seed} done", file=sys.stderr, flush=True)
    training_s = time.process_time() - started
    comparison = compare([str(run) for group in runs.values() for run in group], runs_dir=root, latency=False)
    found = {"configuration": asdict(configuration), "cpu_s_of_this_call": training_s, **_environment(runs)}
    return (
        found
        | {"groups": {name: _group(group) for name, group in runs.items()}, **_gain(runs)}
        | {"compare": comparison.to_json()}
    )


def _ensure(name: str, seed: int, teacher: Path | None, options: Any) -> Path:
    """The finished run of that seed: the one that is there, gone on with, or a new one."""
    from distill.pipeline import finetune_teacher, resume_run, train_student
    from distill.recipe import load_recipe
    from distill.runs import RunFolder

    recipe = load_recipe(name, [f"train.seed={seed}"])
    for path in sorted((options.runs_dir / name).glob("[0-9]*")):
        run = RunFolder(path)
        if (path / "recipe.yaml").is_file() and run.info.seeds.get("train") == seed:
            return path if run.status == "finished" else resume_run(path, options=options).run
    if teacher is None:
        return finetune_teacher(recipe, options=options).run
    return train_student(recipe, teacher=None if recipe.teacher is None else str(teacher), options=options).run


def _answers(run: Path) -> Any:
    """Which test images a run classifies rightly: ``(N,)`` bool."""
    import torch

    from distill.evaluation.assess import assess
    from distill.runs import RunFolder

    return assess(RunFolder(run), device=torch.device("cpu")).correct


def _group(runs: list[Path]) -> dict[str, Any]:
    import numpy as np

    from distill.evaluation.mean_std import mean_std
    from distill.evaluation.statistics import mean_interval
    from distill.runs import RunFolder

    top1 = [float(np.mean(_answers(run))) for run in runs]
    mean, std = mean_std(top1)
    interval = mean_interval(top1)
    seconds = sorted(RunFolder(run).result("seconds")["seconds"] for run in runs)
    return {
        "n": len(runs),
        "test_top1": top1,
        "mean": mean,
        "std": std,
        "interval_95": None if interval is None else [interval.low, interval.high],
        "threads": sorted({RunFolder(run).info.threads for run in runs}),
        "median_seconds": seconds[len(seconds) // 2],
    }


def _gain(runs: dict[str, list[Path]]) -> dict[str, Any]:
    import numpy as np

    from distill.evaluation.statistics import compare_seeds

    if len(runs[STUDENT]) < 2:
        return {}
    taught, scratch = (np.stack([_answers(run) for run in runs[name]]) for name in (STUDENT, SCRATCH))
    test = compare_seeds(taught, scratch)
    found = {"points": 100 * test.difference.estimate, "p_value": test.p_value, "n": test.n, "method": test.method}
    return {"gain": found | {"interval_95": [100 * test.difference.low, 100 * test.difference.high]}}


def _environment(runs: dict[str, list[Path]]) -> dict[str, Any]:
    from distill.runs import RunFolder

    info = RunFolder(runs[TEACHER][0]).info
    return {"device": info.device, "versions": dict(info.versions), "git": info.git}


# All of them


def collect(configurations: list[Configuration], root: Path, seeds: int) -> list[dict[str, Any]]:
    """Each configuration in turn, in a process with its kernels."""
    documents = []
    for configuration in configurations:
        kernels = {"ONEDNN_MAX_CPU_ISA": configuration.isa} if configuration.isa != "native" else {}
        environment = {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ | kernels
        command = [sys.executable, "-m", "benchmarks.quickstart", "--runs", str(root), "--seeds", str(seeds)]
        done = subprocess.run(
            [*command, "--child", configuration.name], env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        documents.append(json.loads(done.stdout))
    return documents


def render(documents: list[dict[str, Any]]) -> Table:
    """A row for each configuration."""
    table = Table(title="Test top-1 of the quickstart, percent: mean ± standard deviation (95% interval of the mean)")
    for column in ("kernels, threads", "n", "teacher", "labels alone", "taught", "gain, points", "p"):
        table.add_column(column)
    for document in documents:
        groups, gain = document["groups"], document.get("gain")
        told = ["", ""] if gain is None else [_spread(gain["points"], gain["interval_95"]), f"{gain['p_value']:.2g}"]
        threads = ", ".join(str(n) for n in groups[STUDENT]["threads"])
        row = [f"{document['configuration']['isa']}, {threads}", str(groups[STUDENT]["n"])]
        row += [_accuracy(groups[name]) for name in (TEACHER, SCRATCH, STUDENT)]
        table.add_row(*row, *told)
    return table


def _accuracy(group: dict[str, Any]) -> str:
    if group["std"] is None:
        return f"{100 * group['mean']:.2f}"
    low, high = (100 * bound for bound in group["interval_95"])
    return f"{100 * group['mean']:.2f} ± {100 * group['std']:.2f} ({low:.2f} to {high:.2f})"


def _spread(points: float, bounds: list[float]) -> str:
    return f"{points:+.2f} ({bounds[0]:+.2f} to {bounds[1]:+.2f})"


def main(arguments: list[str] | None = None) -> None:
    """Trains what is missing, and prints a table; with ``--out`` it writes quickstart.json too."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quickstart", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--runs", type=Path, required=True, help="folder of the runs; a folder in it for each configuration"
    )
    parser.add_argument("--out", type=Path, help="folder for quickstart.json (default: none is written)")
    parser.add_argument("--seeds", type=int, default=16, help="students of each kind (default: 16)")
    parser.add_argument("--only", help="configurations by name (default: all)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    by_name = {configuration.name: configuration for configuration in CONFIGURATIONS}
    if options.child is not None:
        print(json.dumps(work(by_name[options.child], options.runs / options.child, options.seeds)))
        return
    chosen = [by_name[name] for name in options.only.split(",")] if options.only else list(CONFIGURATIONS)
    documents = collect(chosen, options.runs.absolute(), options.seeds)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        document = {"benchmark": "quickstart", "configurations": documents}
        text = json.dumps(document, indent=1).replace(f"{options.runs.absolute()}{os.sep}", "")  # nobody else's folders
        (options.out / "quickstart.json").write_text(text + "\n")
    Console(width=200).print(render(documents))


if __name__ == "__main__":
    main()
