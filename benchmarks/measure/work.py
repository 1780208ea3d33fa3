"""One run of the queue, in processes of its own: trained or gone on with, tested once, recorded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure.plan import TEACHERS, Item
from distill.commands import training_verb
from distill.files import json_sha256, write_json
from distill.recipe import Recipe, load_recipe
from distill.recipe.dump import flat_settings
from distill.runs import RunFolder, open_run
from distill.runs.released import released_networks

__all__ = ["FailedError", "Place", "cpu_kind", "find_run", "measure", "recipe_digest", "trained_run"]

# where things lie, not what they are; and how several teachers are asked, which their banks say and no run's recipe
_ELSEWHERE = ("teacher.run", "teacher.banks", "teacher.precision", "model.weights", "data.root")

_BANKS = "teacher.banks="
_COST = ("params", "gmacs", "size_mb", "epochs", "seconds", "images_per_s")
_TEST = ("top1", "top5", "nll", "ece")


class FailedError(Exception):
    """A process of the queue ended with something else than 0; ``code`` is its exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Place:
    """Where the queue works.

    Attributes:
        runs: Folder of the runs; what each process said and what it cost is kept in its ``measured/``.
        settings: Further changes, by recipe: ``model.weights=FILE`` of a teacher.
    """

    runs: Path
    threads: int
    settings: Mapping[str, tuple[str, ...]]

    def changes(self, item: Item) -> list[str]:
        """What ``item`` changes in its recipe."""
        return [f"train.seed={item.seed}", *self.settings.get(item.recipe, ()), *self._taught_by(item)]

    def _taught_by(self, item: Item) -> list[str]:
        """Several teachers as the runs that they are here; none before all are there: see :meth:`missing`."""
        if item.recipe not in TEACHERS or self.missing(item):
            return []
        runs = [run for run in self._members(item).values() if run is not None]
        return [f"{_BANKS}[{', '.join(f'{{run: {str(run.path)!r}}}' for run in runs)}]"]

    def missing(self, item: Item) -> list[Item]:
        """Of several teachers those that are still to be trained."""
        return [member for member, run in self._members(item).items() if run is None or run.status != "finished"]

    def _members(self, item: Item) -> dict[Item, RunFolder | None]:
        """Several teachers and their runs: where one comes trained that one, not what the queue made of its recipe."""
        return {
            member: (trained_run(self.runs, member.recipe) if member.seed == 0 else None) or find_run(self, member)
            for member in TEACHERS.get(item.recipe, ())
        }

    def told(self, item: Item) -> list[str]:
        """What ``item`` changes, for a record: files by their names, teachers by recipe and seed."""
        members = ", ".join(map(str, TEACHERS.get(item.recipe, ())))
        changes = (f"{_BANKS}{members}" if change.startswith(_BANKS) else change for change in self.changes(item))
        return [change.rpartition("/")[2] if "/" in change else change for change in changes]

    def recipe(self, item: Item) -> Recipe:
        """The recipe of that run."""
        return load_recipe(item.recipe, self.changes(item))


def cpu_kind() -> dict[str, Any]:
    """What this machine's CPU is and can do, from a process of its own (the queue itself imports no torch)."""
    code = (
        "import json, torch; from distill.devices import describe_device; cpu = torch.device('cpu'); "
        "native = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported(); "
        "print(json.dumps({'name': describe_device(cpu), 'capability': torch.backends.cpu.get_cpu_capability(), "
        "'bf16': bool(native)}))"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    kind: dict[str, Any] = json.loads(done.stdout)
    cap = os.environ.get("ONEDNN_MAX_CPU_ISA")
    return kind | ({"onednn_max_cpu_isa": cap} if cap else {})


def recipe_digest(recipe: Recipe) -> str:
    """Of what a recipe states, seed and places apart: a result of another digest is not one of this recipe's.

    Defaults are not among it, so that a new setting of the schema leaves old results standing.
    """
    stated = flat_settings(recipe.model_dump(mode="json", exclude_unset=True))
    return json_sha256({key: stated[key] for key in sorted(stated) if key not in (*_ELSEWHERE, "train.seed")})[:16]


def _is_of(run: RunFolder, recipe: Recipe) -> bool:
    """Whether a run was made by this recipe: all that it states and leaves to no machine."""
    stated = flat_settings(recipe.model_dump(mode="json", exclude_unset=True))
    made = flat_settings(run.recipe().model_dump(mode="json"))
    return all(made.get(key) == value for key, value in stated.items() if value != "auto" and key not in _ELSEWHERE)


def trained_run(runs: Path, name: str | None) -> RunFolder | None:
    """The network that comes trained under that name, apart from runs that the queue makes; None where none does."""
    return open_run(name, runs_dir=runs / "trained") if name is not None and name in released_networks() else None


def find_run(place: Place, item: Item) -> RunFolder | None:
    """The newest run of that recipe, as it is today, and seed; None where there is none."""
    recipe = place.recipe(item)
    for path in sorted((place.runs / item.recipe).glob("[0-9]*"), reverse=True):
        run = RunFolder(path)
        if (path / "recipe.yaml").is_file() and run.info.seeds.get("train") == item.seed and _is_of(run, recipe):
            return run
    return None


def measure(place: Place, item: Item, kind: dict[str, Any]) -> dict[str, Any]:
    """Do what is left of a run, and say what it came to.

    Raises:
        FailedError: Training or evaluating failed, or was stopped; the run can be gone on with.
    """
    run = find_run(place, item)
    if run is None or run.status != "finished":
        _train(place, item, run)
        run = find_run(place, item)
    if run is None or run.status != "finished":
        raise FailedError(f"{item}: no finished run", 1)
    command = ["evaluate", str(run.path), "--json", "--no-plots", "--threads", str(place.threads)]
    found = json.loads(_distill(place, item, command))
    return _record(run, found, item, kind, place)


def _train(place: Place, item: Item, run: RunFolder | None) -> None:
    verb = training_verb(place.recipe(item).role)
    shared = ["--runs", str(place.runs), "--quiet", "--json"]
    if run is not None:
        _distill(place, item, [verb, "--resume", str(run.path), *shared])
        return
    changes = [word for change in place.changes(item) for word in ("--set", change)]
    _distill(place, item, [verb, "--recipe", item.recipe, *changes, "--threads", str(place.threads), *shared])


def _distill(place: Place, item: Item, words: list[str]) -> str:
    """What a command prints; that it begins, and the CPU time that it took, are added to the run's ledger."""
    kept = place.runs / "measured"
    kept.mkdir(parents=True, exist_ok=True)
    ledger = kept / f"{item}.jsonl"
    _add_line(ledger, {"verb": words[0], "began": True})
    started = time.monotonic()
    command = [sys.executable, "-m", "distill", *words]
    with (
        (kept / f"{item}.log").open("a") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as child,
    ):
        handlers = {number: signal.signal(number, lambda n, _: child.send_signal(n)) for number in _STOPPING}
        try:
            assert child.stdout is not None
            printed = child.stdout.read()
            _, status, used = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    spent = {"verb": words[0], "cpu_s": used.ru_utime + used.ru_stime, "wall_s": time.monotonic() - started}
    _add_line(ledger, spent)
    if child.returncode != 0:
        raise FailedError(f"{item}: distill {words[0]} ended with {child.returncode}", child.returncode)
    return printed


def _add_line(ledger: Path, line: dict[str, Any]) -> None:
    with ledger.open("a") as file:
        file.write(json.dumps(line) + "\n")


_STOPPING = (signal.SIGINT, signal.SIGTERM)


def _record(run: RunFolder, found: dict[str, Any], item: Item, kind: dict[str, Any], place: Place) -> dict[str, Any]:
    recipe, info, result = run.recipe(), run.info, run.result(*_COST)
    told = {"recipe": item.recipe, "seed": item.seed, "role": recipe.role, "dataset": recipe.data.name}
    taught = info.teacher or {}
    record = {
        **told,
        **{f"test_{name}": found[name] for name in _TEST},
        **{name: result[name] for name in _COST},
        "input_size": recipe.model.input_size,
        "train_images": (info.data or {}).get("train"),
        "unlabelled_images": (info.data or {}).get("unlabelled", 0),
        "objective": recipe.objective.kind,
        "teacher": None if recipe.teacher is None else {key: taught.get(key) for key in ("name", "sha256")},
        "precision": recipe.train.precision,
        "threads": info.threads,
        "cpu_s": _cpu_seconds(place, item),
        "settings": place.told(item),
        "git": info.git,
        "cpu": kind,
        "versions": dict(info.versions),
        "finished": info.finished,
        "recipe_digest": recipe_digest(place.recipe(item)),
    }
    write_json(place.runs / "measured" / f"{item}.json", record)
    return record


def _cpu_seconds(place: Place, item: Item) -> float | None:
    """CPU time of all training processes of a run; None where one was killed with the queue."""
    path = place.runs / "measured" / f"{item}.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    training = [line for line in lines if line["verb"] != "evaluate"]
    begun = sum("began" in line for line in training)
    spent = [line["cpu_s"] for line in training if "cpu_s" in line]
    return sum(spent) if spent and begun <= len(spent) else None
