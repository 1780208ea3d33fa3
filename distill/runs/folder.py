"""A run is a folder: run.json, recipe.yaml, metrics.jsonl, timing.jsonl, run.log, checkpoints/, plots/, result.json."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.commands import resume_command
from distill.errors import DistillError, RecipeError, RunError
from distill.files import (
    follow_link,
    link_atomically,
    read_json,
    read_text,
    remove_partials,
    write_atomically,
    write_json,
)
from distill.results.figures import Figures
from distill.runs.checkpoints.folder import clear_half_written
from distill.runs.info import RunInfo, Status
from distill.runs.journal import Journal, append_bytes, is_number
from distill.runs.lock import Lock, Owner, lock_owner, owner_is_dead, utc_now

if TYPE_CHECKING:
    from distill.recipe.schema import Recipe

__all__ = ["RunFolder"]

_DAY_S = 86400.0
_RESTORE = "restore the file from a copy, or start the run anew"


@dataclass(frozen=True)
class RunFolder:
    """One run, at ``runs/<name>/<NNN>``. Every file is read when asked for and written as a whole."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """The run's name: its folder's, or of a copy that stands elsewhere the copy's own."""
        path = self.path.absolute()
        return path.parent.name if path.name.isdecimal() else path.name

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def evaluation(self) -> Path:
        """The folder of what its network answered, and what was made of that."""
        return self.path / "evaluation"

    @property
    def plots(self) -> Path:
        """The folder of plots."""
        return self.path / "plots"

    @contextlib.contextmanager
    def lock(self, *, wait_s: float = 0.0) -> Iterator[Lock]:
        """Hold the run for this process, and clear away what a killed one left half-written.

        Raises:
            RunError: ``runs/x/003 is in use by process 123 on host H``.
        """
        with Lock(self.path / "lock.json", subject=str(self.path), wait_s=wait_s) as lock:
            for folder in (self.path, self.plots, self.evaluation):
                remove_partials(folder)
            clear_half_written(self.checkpoints)  # after its last checkpoint a run prunes no more
            yield lock

    def clear_dead(self) -> None:
        """Remove the lock of a process that died, and what it left half-written; a run in use is left alone."""
        if owner_is_dead(self.path / "lock.json"):
            with contextlib.suppress(DistillError), self.lock():
                pass

    @property
    def owner(self) -> Owner | None:
        """The living process that holds the run, if any."""
        return lock_owner(self.path / "lock.json")

    @property
    def status(self) -> Status:
        """How the run stands: ``running`` only while its process lives, ``interrupted`` if that died."""
        written = self.read_info().status
        return "interrupted" if written == "running" and self.owner is None else written

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of their labels.

        Raises:
            RunError: run.json is damaged, or of a run that never had data.
        """
        classes = (self.info.data or {}).get("classes")
        if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
            raise RunError(f"{self.path / 'run.json'}: damaged: data.classes should be a list of text", hint=_RESTORE)
        return tuple(classes)

    @property
    def info(self) -> RunInfo:
        """The content of run.json."""
        return self.read_info()

    def read_info(self) -> RunInfo:
        """The content of run.json; of a run that was killed before it wrote one, its name and role.

        Raises:
            RunError: It is missing or damaged.
        """
        path = self.path / "run.json"
        if not os.path.lexists(path) and self._contents() in ({"recipe.yaml"}, {"recipe.yaml", "run.log"}):
            return RunInfo(name=self.name, role=self.recipe().role)
        return RunInfo.from_json(read_json(path, hint=_RESTORE), source=path)

    def never_began(self) -> bool:
        """Whether the run was killed before both run.json and recipe.yaml were written, in this order."""
        contents = self._contents()
        if not contents:
            return True
        with contextlib.suppress(RunError):  # damaged: that is a problem to report, not a run to pass over
            return contents <= {"run.json", "run.log"} and self.read_info().status == "running" and not self.owner
        return False

    def _contents(self) -> set[str]:
        try:
            return {name for name in os.listdir(self.path) if name != "lock.json" and not name.startswith(".")}
        except OSError as cause:
            raise RunError(f"{self.path}: cannot be read: {cause.strerror}") from cause

    def write_info(self, **changes: Any) -> RunInfo:
        """Change run.json, or begin it; names that are no field of :class:`RunInfo` are kept as they are."""
        path = self.path / "run.json"
        before = self.read_info() if path.exists() else RunInfo(name=self.name)
        info = before.updated(**changes)
        RunInfo.from_json(info.to_json(), source=path)
        write_json(path, info.to_json())
        return info

    def recipe(self) -> Recipe:
        """The resolved recipe.

        Raises:
            RunError: recipe.yaml is missing or damaged.
        """
        from distill.recipe.load import parse_recipe

        path = self.path / "recipe.yaml"
        text = read_text(path, hint=_RESTORE)
        try:
            return parse_recipe(text, source=str(path))
        except RecipeError as cause:  # not the user's spelling: this file is distill's own
            raise RunError(cause.message, hint=cause.hint or _RESTORE) from cause

    def write_recipe(self, recipe: Recipe) -> None:
        """Write recipe.yaml with every default spelled out."""
        from distill.recipe.dump import dump_recipe

        write_atomically(self.path / "recipe.yaml", dump_recipe(recipe))

    def append_metrics(self, entry: dict[str, Any]) -> None:
        """Add an epoch to metrics.jsonl; what it holds is the same on every repeat of the run."""
        self._metrics.append(entry)

    def metrics(self) -> list[dict[str, Any]]:
        """One object of numbers an epoch.

        Raises:
            RunError: The file is damaged, with the line.
        """
        return self._metrics.read_numbers()

    def picked(self, lines: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
        """Which of these lines of :meth:`metrics` ``train.monitor`` picks, of equal ones the first; None: none.

        Raises:
            RunError: recipe.yaml is missing or damaged.
        """
        if not lines:
            return None
        from distill.recipe.base import worth

        monitor = self.recipe().train.monitor
        worths = [worth(line, monitor) for line in lines]
        known = [(value, -place) for place, value in enumerate(worths) if value is not None]
        return lines[-max(known)[1]] if known else None

    def truncate_metrics(self, epochs_kept: int) -> None:
        """Go back to the first ``epochs_kept`` epochs.

        Raises:
            RunError: There are fewer.
        """
        if (kept := self._metrics.truncate(epochs_kept)) < epochs_kept:
            raise RunError(
                f"{self._metrics.path}: damaged: {kept} epochs where the checkpoint has {epochs_kept}", hint=_RESTORE
            )

    def append_timing(self, entry: dict[str, Any]) -> None:
        """Add an epoch to timing.jsonl: what differs from repeat to repeat."""
        self._timing.append(entry)

    def timing(self) -> list[dict[str, Any]]:
        """One object of numbers an epoch.

        Raises:
            RunError: The file is damaged, with the line.
        """
        return self._timing.read_numbers()

    def truncate_timing(self, epochs_kept: int) -> None:
        """Go back to the first ``epochs_kept`` epochs; fewer are left as they are."""
        self._timing.truncate(epochs_kept)

    @property
    def _metrics(self) -> Journal:
        return Journal(self.path / "metrics.jsonl")

    @property
    def _timing(self) -> Journal:
        return Journal(self.path / "timing.jsonl")

    def log(self, text: str) -> None:
        """Add text to run.log, with the time; where that fails, nothing that matters is lost, and the run goes on."""
        lines = "".join(f"{utc_now()} {line}\n" for line in text.splitlines() or [""])
        with contextlib.suppress(OSError):
            append_bytes(self.path / "run.log", lines.encode(errors="backslashreplace"), sync=False)

    def result(self, *numbers: str) -> dict[str, Any]:
        """The content of result.json.

        Args:
            numbers: Keys that must be there; each a number, or null where nothing was validated.

        Raises:
            RunError: It is missing or damaged.
        """
        path = self.path / "result.json"
        hint = "restore it from a copy; or repeat the run, by --rerun"
        document = read_json(path, hint=hint)
        for name in numbers:
            unmeasured = name.startswith("val_") and name in document and document[name] is None
            if not (is_number(document.get(name)) or unmeasured):
                raise RunError(f"{path}: damaged: {name} should be a number", hint=hint)
        return document

    def figures(self) -> Figures:
        """What result.json says of the network: parameters, GMACs, size.

        Raises:
            RunError: It is missing or damaged.
        """
        result = self.result("params", "gmacs", "size_mb")
        try:
            return Figures.from_json(result)
        except ValueError as error:
            raise RunError(f"{self.path / 'result.json'}: damaged: {error}") from error

    def write_result(self, result: dict[str, Any]) -> None:
        """Write result.json."""
        write_json(self.path / "result.json", result)

    def point_latest(self) -> None:
        """Make ``latest`` beside this run point at it, unless it points at a later one, or is somebody's folder."""
        link = self.path.parent / "latest"
        remove_partials(link.parent, "latest", older_than_s=_DAY_S)
        if link.is_dir() and not link.is_symlink():
            return
        current = follow_link(link)
        if current is None or not current.name.isdecimal() or int(current.name) <= int(self.path.name):
            link_atomically(link, self.path.name)

    def resume_command(self) -> str:
        """The command line that goes on with this run."""
        from distill.code import needs_allow_code  # it brings as many modules as all else that listing runs takes

        try:
            allow_code = needs_allow_code(self.recipe().own_code)
        except DistillError:  # resuming says what is wrong with it
            allow_code = False
        return resume_command(self.read_info().role, self.path, allow_code=allow_code)
