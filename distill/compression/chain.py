"""A chain's folder, ``compressed/<name>``: chain.json, steps.json, trials/, exports/, result.json, a picture."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from distill.compression.candidate import CompressionCandidate
from distill.compression.prune import Criterion
from distill.errors import RunError, UsageError
from distill.files import read_json, remove_partials, sha256_file, write_json, writing
from distill.references import check_name
from distill.runs import Lock, RunFolder

__all__ = ["ChainDefinition", "ChainFolder"]


@dataclass(frozen=True)
class ChainDefinition:
    """What decides the networks that a chain tries; how much they may lose, and how many are tried, may change.

    Attributes:
        weights: sha256 of the run's weights and buffers.
        measure: What a candidate keeps a share of: ``macs`` or ``params``.
        epochs: Of re-distillation; None leaves them to the recipe.
        criterion: How channels are ranked.
    """

    weights: str
    measure: Literal["macs", "params"]
    epochs: int | None
    criterion: Criterion


@dataclass(frozen=True)
class ChainFolder:
    """One chain's files. Every one is written as a whole."""

    path: Path

    @property
    def exports(self) -> Path:
        """Where the files that ship are."""
        return self.path / "exports"

    def trials(self, ratio: float) -> Path:
        """Where the runs of one candidate are."""
        return self.path / "trials" / f"{ratio:.4f}"

    def qat(self, ratio: float) -> Path:
        """Where a candidate's runs of quantisation-aware training are."""
        return self.path / "qat" / f"{ratio:.4f}"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the chain for this process, and clear away what a killed one left half-written.

        Raises:
            RunError: Another process holds it.
        """
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        with Lock(self.path / "lock.json", subject=f"the chain {self.path}"):
            remove_partials(self.path)
            remove_partials(self.exports)
            yield

    @classmethod
    def beside(cls, runs_dir: Path, name: str) -> ChainFolder:
        """The folder of a chain: ``compressed/<name>`` beside the folder of runs.

        Raises:
            UsageError: The name cannot be a folder's.
        """
        return cls(runs_dir.parent / "compressed" / check_name(name, "a chain"))

    def claim(self, definition: ChainDefinition) -> None:
        """Begin the chain, or go on with it; where nothing was cut yet, how it is to be cut may change.

        Raises:
            UsageError: The folder holds a chain of another run, or of other cuts.
        """
        path = self.path / "chain.json"
        if not os.path.lexists(path):
            write_json(path, {"version": 1} | asdict(definition))
            return
        before = read_json(path)
        different = [name for name, value in asdict(definition).items() if before.get(name) != value]
        if different and "weights" not in different and not (self.path / "trials").exists():
            write_json(path, {"version": 1} | asdict(definition))
        elif different:
            raise UsageError(
                f"{self.path} holds another chain: other {', '.join(different)}",
                hint="give this one a name of its own: --name NAME",
            )

    def run_of(self, candidate: CompressionCandidate) -> RunFolder:
        """A candidate's run."""
        return RunFolder(self.path / candidate.run)

    def steps(self) -> dict[float, CompressionCandidate]:
        """What was tried, by ratio.

        Raises:
            RunError: steps.json is damaged.
        """
        path = self.path / "steps.json"
        if not path.exists():
            return {}
        try:
            found = [CompressionCandidate.from_json(each) for each in read_json(path)["steps"]]
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(
                f"{path}: damaged", hint="remove the file: networks that are trained are judged anew"
            ) from error
        return {each.ratio: each for each in found}

    def keep(self, candidate: CompressionCandidate) -> None:
        """Add a step, or replace it."""
        steps = self.steps() | {candidate.ratio: candidate}
        write_json(self.path / "steps.json", {"steps": [steps[ratio].to_json() for ratio in sorted(steps)[::-1]]})

    def is_intact(self, candidate: CompressionCandidate) -> bool:
        """Whether its run is there, and its file as it was written."""
        shipped = candidate.shipped
        if not self.run_of(candidate).path.is_dir():
            return False
        if shipped is None:
            return True
        path = self.exports / shipped.file
        return path.is_file() and sha256_file(path) == shipped.sha256

    def write_result(self, document: dict[str, Any]) -> None:
        """Write result.json."""
        write_json(self.path / "result.json", document)

    def remove_result(self) -> None:
        """What an earlier call came to no longer stands: a file that it names is gone."""
        (self.path / "result.json").unlink(missing_ok=True)
