"""A sweep's folder, ``sweeps/<name>``: sweep.json, trials/, trials.json, study.db, best.yaml, result.json, a plot."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from distill.errors import NoRunError, RunError, UsageError
from distill.files import read_json, remove_partials, write_json, writing
from distill.pipeline.teacher import teachers_named
from distill.recipe import flat_settings
from distill.runs import Lock, RunFolder
from distill.sweeps.plan import BaseRecipe
from distill.sweeps.space import parse_grid, parse_search

__all__ = [
    "SweepDefinition",
    "SweepFolder",
    "check_same",
    "find_sweep",
    "portable",
    "redacted",
    "sweeps_dir",
    "teachers_to_keep",
]

_SECRET = re.compile(r"([?&](?:\w*password|passwd|pwd|token|secret)=)[^&#]*", re.IGNORECASE)
_OTHER = "give this sweep a name of its own: --name NAME"


def sweeps_dir(runs_dir: Path) -> Path:
    """The folder of all sweeps: beside that of all runs."""
    return runs_dir.parent / "sweeps"


def redacted(text: str) -> str:
    """A URL without its password, alone or behind an option's ``=``; any other text as it is.

    >>> redacted("postgresql://me:secret@host/db"), redacted("--storage=postgresql://me:secret@host/db")
    ('postgresql://me:***@host/db', '--storage=postgresql://me:***@host/db')
    >>> redacted("redis://host:6379/0?password=secret&x=1")
    'redis://host:6379/0?password=***&x=1'
    """
    option, equals, value = text.partition("=")
    if option.startswith("-") and equals:
        return f"{option}={redacted(value)}"
    if "://" not in text:
        return text
    text = _SECRET.sub(r"\1***", text)
    try:
        parts = urlsplit(text)
        if parts.password is None:
            return text
    except ValueError:
        return text
    user, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}:***@{host}"))


@dataclass(frozen=True)
class SweepDefinition:
    """What a sweep was asked to do, as sweep.json keeps it.

    Attributes:
        recipe: The recipe as written, overrides applied, defaults left open.
        source: What messages call that recipe.
        teacher: What stands in for the recipe's: a run, several, or an ONNX file, as they were named.
        worker: Which of several machines on one study this folder belongs to.
        teachers: Which run folder each name of a teacher meant when the sweep began.
        runs: The folder of all runs, from the sweep's folder.
        commands: What was typed: the first, and each that asked for more; resuming asks for nothing new.
    """

    source: str
    recipe: dict[str, Any]
    grid: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    trials: int | None = None
    seeds: int = 1
    storage: str | None = None
    prune: bool = True
    teacher: tuple[str, ...] = ()
    device: str | None = None
    threads: int | None = None
    worker: str = field(default_factory=lambda: secrets.token_hex(8))
    teachers: dict[str, str] = field(default_factory=dict)
    runs: str = "../../runs"
    commands: tuple[tuple[str, ...], ...] = ()

    @cached_property
    def base(self) -> BaseRecipe:
        """The recipe that trials change."""
        return BaseRecipe(self.recipe, self.source)

    @property
    def identity(self) -> dict[str, Any]:
        """What must agree for two sweeps to be one: the recipe, wherever its data lies, and what is searched."""
        recipe = self.base.recipe
        data = recipe.data.model_copy(update={"root": ""})
        tree = recipe.model_copy(update={"data": data, "teacher": None, "search": None}).model_dump(mode="json")
        keys = ",".join(sorted(axis.key for axis in parse_grid(self.grid)))
        search = "; ".join(sorted(map(repr, parse_search(self.search))))
        return flat_settings(tree) | {"--grid": keys, "--search": search}

    @classmethod
    def from_json(cls, tree: Mapping[str, Any], *, source: Path) -> SweepDefinition:
        """Read sweep.json.

        Raises:
            RunError: It is damaged.
        """
        known = {item.name: tree[item.name] for item in fields(cls) if item.name in tree}
        try:
            lists = {key: tuple(known[key]) for key in ("grid", "search")}
            commands = tuple(map(tuple, known.get("commands", ())))
            teacher = tuple(map(str, known["teacher"]))
            definition = cls(**(known | lists | {"commands": commands, "teacher": teacher}))
            assert isinstance(definition.recipe, dict)
            assert isinstance(definition.teachers, dict)
        except (KeyError, TypeError, AssertionError) as error:
            raise RunError(f"{source}: damaged", hint="remove the file, or use another --name") from error
        return definition


@dataclass(frozen=True)
class SweepFolder:
    """One sweep's files. Every one is written as a whole."""

    path: Path

    @property
    def trials(self) -> Path:
        """The folder of the trials' runs."""
        return self.path / "trials"

    @property
    def subject(self) -> str:
        """How messages call it."""
        return f"the sweep {self.path}"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the sweep for this process, and clear away what a killed one left half-written.

        Raises:
            RunError: Another process holds it.
        """
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        with Lock(self.path / "lock.json", subject=self.subject):
            remove_partials(self.path)
            yield

    def entry_of(self, run: RunFolder) -> str:
        """How a trial's run is written down: from the sweep's folder, so that both may move together."""
        return portable(run.path, self.path)

    def run_of(self, entry: str) -> RunFolder:
        """The run that was written down."""
        return RunFolder(self.path / entry)

    def remove_orphans(self, entries: Collection[str]) -> None:
        """Remove what a killed sweep left of trials before it wrote them down in ``entries``: no step was done in them.

        Only the holder of the sweep's lock may call this.
        """
        for run in map(RunFolder, self.trials.glob("[0-9]*")):
            if self.entry_of(run) not in entries and run.owner is None and not run.checkpoints.exists():
                shutil.rmtree(run.path, ignore_errors=True)

    def definition(self) -> SweepDefinition | None:
        """What the folder's sweep was asked to do; None where there is none yet."""
        path = self.path / "sweep.json"
        return SweepDefinition.from_json(read_json(path), source=path) if os.path.lexists(path) else None

    def write_definition(self, definition: SweepDefinition) -> None:
        """Write sweep.json; a password in the storage's URL is left out."""
        storage = None if definition.storage is None else redacted(definition.storage)
        tree = asdict(definition) | {"storage": storage}
        write_json(self.path / "sweep.json", {"version": 1} | tree)

    def ledger(self) -> dict[str, dict[str, Any]]:
        """Which run each trial of a grid has, by the trial's key."""
        path = self.path / "trials.json"
        return read_json(path) if path.exists() else {}

    def write_ledger(self, ledger: Mapping[str, dict[str, Any]]) -> None:
        """Write trials.json."""
        write_json(self.path / "trials.json", dict(ledger))


def portable(path: Path, folder: Path) -> str:
    """``path`` from ``folder`` where it lies in it, so that both may move together; else the whole path."""
    absolute, root = path.absolute(), folder.absolute()
    return str(absolute.relative_to(root)) if absolute.is_relative_to(root) else str(absolute)


def teachers_to_keep(teacher: Any) -> tuple[str, ...]:
    """What stands in for a recipe's teacher, as a folder's file keeps it: of a file its whole path.

    Raises:
        UsageError: It is nothing that names a run.
    """
    named = teachers_named(teacher)
    return tuple(os.path.abspath(name) if name.lower().endswith(".onnx") else name for name in named)


def check_same(before: SweepDefinition, now: SweepDefinition, path: Path) -> None:
    """Refuse to mix two sweeps in one folder; more values of the same keys, trials or seeds are welcome.

    Raises:
        UsageError: They differ; the message says in what.
    """
    one, two = before.identity, now.identity
    if before.teacher != now.teacher:
        one, two = one | {"--teacher": before.teacher}, two | {"--teacher": now.teacher}
    different = [key for key in {**one, **two} if one.get(key) != two.get(key)]
    if different:
        more = f" and {len(different) - 3} more" if len(different) > 3 else ""
        raise UsageError(f"{path} holds another sweep: other {', '.join(different[:3])}{more}", hint=_OTHER)


def find_sweep(reference: str | Path, runs_dir: Path) -> SweepFolder:
    """A sweep by its path or its name.

    Raises:
        NoRunError: There is none.
    """
    for path in (Path(reference), sweeps_dir(runs_dir) / str(reference)):
        if (path / "sweep.json").is_file():
            return SweepFolder(path)
    root = sweeps_dir(runs_dir)
    names = sorted(path.parent.name for path in root.glob("*/sweep.json"))
    hint = f"there are {', '.join(names[:10])}" if names else "begin one: distill sweep --recipe R --grid A.B=V,W"
    raise NoRunError(f"no sweep {str(reference)!r} in {root}", hint=hint)
