"""Every objective on one small study: the same student, teacher, budget and seeds, paired against ``kd``.

``python -m benchmarks.objectives WORK [--study cifar10|digits] [--seeds 3] [--rows kd,dkd,...] [--out docs/results]``

Each run is a process of its own on one thread, so that its CPU seconds and its peak of memory are its own; what is
finished in ``WORK`` is kept, and the same command goes on. ``cifar10`` wants the data below ``--data``. Objectives
have the defaults of the recipe's schema, which are their papers', for other networks, data and budgets: a small study
ranks nobody.
"""

from __future__ import annotations

import os

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # read once, when torch is imported
os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

__all__ = ["ENTRIES", "STUDIES", "Entry", "Row", "Study", "main", "rows_of"]

_T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
_SUPERVISED = "supervised"


@dataclass(frozen=True)
class Study:
    """What all runs of a study share: two recipes, and what is changed in each."""

    teacher: str
    student: str
    both: tuple[str, ...]
    teachers: tuple[str, ...]
    students: tuple[str, ...]
    about: str


_SMALL = "{{source: students, name: resnet, blocks: {}, channels: [{}], strides: [2, 2, 2], input_size: 32}}"
STUDIES = {
    "cifar10": Study(
        "resnet56_cifar10",
        "resnet20_cifar10",
        (
            "data.val_fraction=0.0",
            "schedule={kind: cosine, warmup_epochs: 1}",
            "train.batch_size=64",
            "train.precision=bf16",
        ),
        (f"model={_SMALL.format([2, 2, 2], '32, 64, 128')}", "train.epochs=6"),
        (f"model={_SMALL.format([1, 1, 1], '16, 32, 64')}", "data.limit=4000", "optim.lr=0.05", "train.epochs=5"),
        "CIFAR-10 at 32 pixels, all 10,000 test images. The teacher, a ResNet-14 of 32 to 128 channels, learned from "
        "50,000 images for 6 epochs; the students, ResNet-8 of 16 to 64 channels, from 4,000 of these for 5 epochs, "
        "315 steps (every stage of both begins with stride 2), by SGD at 0.05 in batches of 64, in bf16",
    ),
    "digits": Study(
        "quickstart_teacher",
        "quickstart_student",
        ("data.val_fraction=0.0",),
        ("train.epochs=12",),
        ("train.epochs=12",),
        "scikit-learn's digits (16x16 RGB), quickstart_teacher to quickstart_student, 12 epochs each",
    ),
}


@dataclass(frozen=True)
class Entry:
    """A row of the table before it is measured.

    Attributes:
        objective: As a recipe writes it.
        asked: Where the teacher's answers come from.
        changes: Of the recipe besides.
        seeds: At most so many; None: all.
    """

    objective: str
    asked: str
    changes: tuple[str, ...] = ()
    seeds: int | None = None


def _entries() -> dict[str, Entry]:
    stored, live = "bank", "live"
    on_logits = ("kd", "dkd", "dist", "mse", "nkd", "mlkd", "ttm", "ctkd")
    on_maps = ("fitnet", "at", "nst", "ab", "ofd", "sp", "vid", "reviewkd", "simkd")  # fsp: no network as wide
    kinds = {kind: Entry(f"{{kind: {kind}}}", stored) for kind in (*on_logits, "rkd", "pkt", "cc")}
    kinds |= {kind: Entry(f"{{kind: {kind}}}", live) for kind in on_maps}
    kinds["ft"] = Entry("{kind: ft, paraphraser_epochs: 2}", live)  # of the 30 there are 5
    kinds["crd"] = Entry("{kind: crd, negatives: 1024}", stored)  # 16384 are more than there are images
    pooled = {
        f"{kind} pooled": Entry(f"{{kind: {kind}, features: [pooled]}}", stored, seeds=1)
        for kind in ("fitnet", "sp", "simkd")
    }
    once = {"kd live": Entry("{kind: kd}", live, ("teacher.logits=live",), seeds=1)}  # the same bytes as from the bank
    return {_SUPERVISED: Entry("{kind: supervised}", "")} | kinds | once | pooled


ENTRIES = _entries()


@dataclass(frozen=True)
class Row:
    """One objective, by seed; a run that diverged has no top-1.

    Attributes:
        top1: On the test set, fractions.
        epoch_cpu_s: Median over the epochs but the first.
        peak_mb: Of the process until training was done.
    """

    name: str
    top1: tuple[float | None, ...]
    epoch_cpu_s: tuple[float, ...]
    peak_mb: tuple[float, ...]

    @property
    def whole(self) -> tuple[float, ...]:
        """The top-1 of runs that ended."""
        return tuple(each for each in self.top1 if each is not None)

    def against(self, other: Row) -> tuple[float, float | None] | None:
        """Mean of the paired differences to another's top-1, and half of its 95% t-interval; None of one seed."""
        pairs = zip(self.top1, other.top1, strict=False)
        differences = [a - b for a, b in pairs if a is not None and b is not None]
        if not differences:
            return None
        count = len(differences)
        if count not in _T_95:
            return statistics.mean(differences), None
        return statistics.mean(differences), _T_95[count] * statistics.stdev(differences) / count**0.5


# One run, in a process of its own


class _Clock:
    """CPU seconds of each epoch, from what the loop tells."""

    def __init__(self) -> None:
        self.marks: list[float] = []

    def __call__(self, event: object) -> None:
        from distill.events import EpochDone, RunStarted

        if isinstance(event, RunStarted | EpochDone):
            self.marks.append(time.process_time())

    def epoch(self) -> float:
        spent = [b - a for a, b in pairwise(self.marks)]
        return statistics.median(spent[1:] or spent or [0.0])


def _train_one(study: Study, name: str, seed: int, work: Path, data: Path) -> dict[str, Any]:
    from distill import Options, evaluate, finetune_teacher, load_recipe, train_student
    from distill.errors import DivergedError
    from distill.runs import open_run

    clock = _Clock()
    shared = [*study.both, "train.threads=1", f"data.root={json.dumps(str(data))}"]
    options = Options(runs_dir=work / "runs", device="cpu", threads=1, on_event=clock)
    if name == "teacher":
        settings = [*shared, *study.teachers, "name=teacher", "role=teacher"]
        run = finetune_teacher(load_recipe(study.teacher, settings), options=options).run
        return {"top1": evaluate(run, options=options).result.top1}
    entry, base = ENTRIES[name], load_recipe(study.student)
    changes = [*shared, *study.students, f"name={name.replace(' ', '_')}", f"train.seed={seed}"]
    changes += [f"objective={entry.objective}", *entry.changes]
    if entry.asked:
        teacher = open_run("teacher", runs_dir=work / "runs").path
        changes += ["role=student", f"teacher.run={teacher}", "teacher.runtime=torch"]
    else:
        changes += ["role=baseline", *(["teacher=null"] if base.teacher else [])]
    try:
        run = train_student(load_recipe(study.student, changes), options=options).run
    except DivergedError as error:
        return {"top1": None, "epoch_cpu_s": clock.epoch(), "peak_mb": _peak_mb(), "error": str(error)}
    measured = {"epoch_cpu_s": clock.epoch(), "peak_mb": _peak_mb()}
    return {"top1": evaluate(run, options=options).result.top1} | measured


def _peak_mb() -> float:
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def _in_a_process(arguments: argparse.Namespace, name: str, seed: int) -> dict[str, Any]:
    file = _row_file(arguments.work, name, seed)
    if not file.exists():
        print(f"{name}, seed {seed}", file=sys.stderr, flush=True)
        # Forked after the imports: they take longer than a short training, and this process computes nothing.
        child = multiprocessing.get_context("fork").Process(target=_train_and_write, args=(arguments, name, seed))
        child.start()
        child.join()
        if child.exitcode:
            sys.exit(f"{name}, seed {seed}: it ended with {child.exitcode}")
    row: dict[str, Any] = json.loads(file.read_text())
    return row


def _train_and_write(arguments: argparse.Namespace, name: str, seed: int) -> None:
    row = _train_one(STUDIES[arguments.study], name, seed, arguments.work, arguments.data)
    _write(_row_file(arguments.work, name, seed), row)


def _row_file(work: Path, name: str, seed: int) -> Path:
    return work / "rows" / f"{name.replace(' ', '_')}_{seed}.json"


# All of them


def rows_of(found: dict[str, list[dict[str, Any]]]) -> list[Row]:
    """Rows in the order of ``found``, each of its runs by seed."""
    return [
        Row(name, *(tuple(run[key] for run in runs) for key in ("top1", "epoch_cpu_s", "peak_mb")))
        for name, runs in found.items()
    ]


def _table(rows: Sequence[Row], baseline: Row) -> str:
    lines = [
        "| objective | answers | test top-1, mean ± sd | against `kd`, paired, 95% | CPU time of an epoch, `kd` = 1 | "
        "peak memory, `kd` = 1 |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        time_ratio = min(row.epoch_cpu_s) / min(baseline.epoch_cpu_s)
        memory_ratio = min(row.peak_mb) / min(baseline.peak_mb)
        lines.append(
            f"| `{row.name}` | {ENTRIES[row.name].asked} | {_accuracy(row)} | {_difference(row, baseline)} | "
            f"{time_ratio:.2f} | {memory_ratio:.2f} |"
        )
    return "\n".join(lines)


def _unrest(rows: Sequence[Row]) -> float:
    """How much longer an epoch of a row's slowest seed took than one of its fastest, at most."""
    return max(max(row.epoch_cpu_s) / min(row.epoch_cpu_s) - 1.0 for row in rows)


def _accuracy(row: Row) -> str:
    whole, diverged = row.whole, len(row.top1) - len(row.whole)
    told = []
    if whole:
        spread = f" ± {100 * statistics.stdev(whole):.2f}" if len(whole) > 1 else ""
        told.append(f"{100 * statistics.mean(whole):.2f}%{spread}" + ("" if len(whole) > 1 else " (1 seed)"))
    if diverged:
        told.append(f"{diverged} of {len(row.top1)} diverged")
    return "; ".join(told)


def _difference(row: Row, baseline: Row) -> str:
    found = None if row is baseline else row.against(baseline)
    if found is None:
        return ""
    mean, half = found
    return f"{100 * mean:+.2f}" + ("" if half is None else f" ± {100 * half:.2f}")


def _document(study: Study, rows: Sequence[Row], teacher: dict[str, Any], options: argparse.Namespace) -> str:
    import torch

    from distill.devices import describe_device, library_versions

    baseline = next(row for row in rows if row.name == "kd")
    machine = describe_device(torch.device("cpu"))
    versions = ", ".join(f"{name} {version}" for name, version in library_versions().items())
    seeds = options.seeds
    return f"""# Objectives

{study.about}. Seeds 0 to {seeds - 1}, one teacher for all ({100 * teacher["top1"]:.2f}%), the last epoch, no
validation images. Each objective has the defaults of the recipe's schema (`crd` 1,024 negatives: its 16,384 are more
than there are images; `ft` 2 epochs of its paraphraser instead of 30), alone beside cross-entropy where its paper has
that. One thread of {machine}, with other work on the machine; {versions}.

{_table(rows, baseline)}

CPU time is that of a training epoch, the median over a run's epochs but the first and the least of its seeds; it has
neither the building of a bank nor tests in it. Of one row's seeds it differs by up to {100 * _unrest(rows):.0f}%
on this machine with other work: ratios closer than that are alike. Memory is the process's largest until training
ended, the least of its seeds. `live` asks the teacher at every step; a bank was asked once for every row that reads
it. `kd live` gives the same bytes as `kd`, and is here for its cost: what a teacher asked live costs on its own.

**Limits.** One pair of small networks, one data set, a few thousand images, a training that is far from done, {seeds}
seeds, and no setting tuned for any objective: the defaults are those of papers with other networks and trainings of
hundreds of epochs (the ramps of `dkd` and `reviewkd`, 20 epochs, are not over when these end, nor is the curriculum of
`ctkd`, 10). `fsp` is not in it: the teacher is wider than the student. A t-interval of {seeds}
seeds is wide; one that holds 0 says that this study cannot tell the two apart, and of twenty one would leave 0 out by
chance. One teacher and one subset: the intervals know nothing of how another would do. It ranks no methods, and says
nothing of how one does when it is tuned.

`python -m benchmarks.objectives WORK --study {options.study} --seeds {seeds}` makes it again.
"""


def main(arguments: list[str] | None = None) -> None:
    """Train what is missing, print the document, and write objectives.md and .json where ``--out`` says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.objectives", description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path, help="where runs are kept")
    parser.add_argument("--study", choices=STUDIES, default="cifar10")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", help="comma-separated (default: all)")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, help="folder for objectives.md and objectives.json")
    options = parser.parse_args(arguments)
    study = STUDIES[options.study]
    names = list(dict.fromkeys(["kd", *(options.rows.split(",") if options.rows else ENTRIES)]))
    if unknown := [name for name in names if name not in ENTRIES]:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(ENTRIES)}")
    import distill.pipeline  # noqa: F401 - before the forks

    teacher = _in_a_process(options, "teacher", 0)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    asked = [(seed, name) for seed in range(options.seeds) for name in names if _is_wanted(name, seed)]
    # Every row of a seed before the next, so that what is there can be paired; rows of fewer seeds come last.
    for seed, name in sorted(asked, key=lambda each: ENTRIES[each[1]].seeds is not None):
        found[name].append(_in_a_process(options, name, seed))
    document = _document(study, rows_of(found), teacher, options)
    print(document)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "objectives.md").write_text(document)
        _write(options.out / "objectives.json", {"study": options.study, "teacher": teacher, "rows": found})


def _is_wanted(name: str, seed: int) -> bool:
    most = ENTRIES[name].seeds
    return most is None or seed < most


def _write(file: Path, tree: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_suffix(".partial")
    aside.write_text(json.dumps(tree, indent=1) + "\n")
    aside.replace(file)


if __name__ == "__main__":
    main()
