"""A teacher that is here as a run: known by what its folder states, loaded when it is first asked."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import torch

from distill.data.batches import Loader
from distill.data.splits import Splits
from distill.devices import using_threads
from distill.errors import RunError, UsageError
from distill.fingerprint import state_sha256
from distill.models.fixed_batch import CPU_BATCH, ask
from distill.models.trained import Trained, load_trained
from distill.recipe import Recipe
from distill.runs import RunFolder
from distill.teaching.identity import Identity, identity_of, read_identity, read_statement, write_identity
from distill.teaching.key import BankKey
from distill.teaching.rounding import check_logits, largest_of
from distill.teaching.runtime import ONNXRUNTIME, Forward, disagreement, forward_through

__all__ = ["TeacherRun"]


class TeacherRun:
    """A run whose network teaches.

    Args:
        run: Finished.
        device: Where it would be asked.
        precision: In which its forward pass runs: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
    """

    def __init__(self, run: RunFolder, *, device: torch.device, precision: str = "auto") -> None:
        self.run = run
        self.precision = precision
        self.name = run.recipe().name
        self.device = device
        self._forward: dict[tuple[str, int | None], Forward] = {}
        self._as_loaded: str | None = None

    @property
    def place(self) -> str:
        """The run's folder."""
        return str(self.run)

    @property
    def recipe(self) -> Recipe:
        """The run's."""
        return self.run.recipe()

    @property
    def home(self) -> Path:
        """The folder that holds its banks."""
        return self.run.path

    @cached_property
    def identity(self) -> Identity:
        """Who it is; nothing is built to know it.

        Raises:
            RunError: The run has no whole checkpoint, or its recipe is damaged.
            UsageError: The device has no such precision.
        """
        return read_identity(self.run, device=self.device, precision=self.precision)

    @cached_property
    def trained(self) -> Trained:
        """The network, loaded once, when it is first asked.

        Raises:
            RunError: It is damaged, or not the one that its folder states.
        """
        trained = load_trained(self.run, device=self.device, precision=self.precision)
        if identity_of(trained) != self.identity:
            raise RunError(
                f"{self.run} states another network in identity.json than it holds",
                hint=f"remove {self.run.path / 'identity.json'}: it is made again",
            )
        self._as_loaded = state_sha256(trained.module.state_dict())  # not its file's: that may be in half precision
        return trained

    def forward_through(self, runtime: str, *, threads: int | None) -> Forward:
        """The network as ``runtime`` asks it; exported once.

        Raises:
            UsageError: It cannot be asked so.
        """
        if (runtime, threads) not in self._forward:
            if runtime == ONNXRUNTIME and (self.device.type != "cpu" or self.identity.precision != "fp32"):
                raise UsageError(
                    f"teacher.runtime: onnxruntime asks on a CPU, in fp32, and {self.run} answers in "
                    f"{self.identity.precision} on {self.device}",
                    hint="teacher.runtime: auto takes what fits",
                )
            self._forward[runtime, threads] = forward_through(self.trained, runtime, threads=threads)
        return self._forward[runtime, threads]

    def disagreement(self, splits: Splits, *, threads: int | None) -> float:
        """How far ONNX Runtime's answers to a few training images are from torch's, as a share of the largest.

        Raises:
            UsageError: It cannot be exported.
        """
        batch = next(Loader(splits.train, device=self.device).plain(CPU_BATCH))
        with using_threads(threads):
            return disagreement(self.trained, self.forward_through(ONNXRUNTIME, threads=threads), batch.images)

    def largest_logit(self, splits: Splits, *, threads: int | None = None) -> float:
        """The largest absolute logit it answers to a few training images; what its folder states of that goes first.

        The network is loaded for it once in its life: then its folder states it.

        Raises:
            RunError: It is NaN or infinite.
        """
        statement = read_statement(self.run)
        if statement is not None and statement.largest_logit is not None:
            return statement.largest_logit
        batch = next(Loader(splits.train, device=self.device).plain(CPU_BATCH))
        with using_threads(threads):
            largest = largest_of(ask(self.trained, batch.images)).item()
        check_logits(largest, teacher=str(self.run), dtype="float32")
        write_identity(self.run, weights=self.identity.weights, largest_logit=largest)
        return largest

    def bank_path(self, key: BankKey) -> Path:
        """Where a bank of its answers lives: in its run folder, by its key."""
        return self.run.path / "banks" / key.digest()[:16]

    def require_classes(self, classes: tuple[str, ...]) -> None:
        """Refuse data of other classes.

        Raises:
            UsageError: The teacher does not know them.
        """
        known = self.identity.classes
        if known != classes:
            raise UsageError(
                f"the teacher {self.run} knows {len(known)} classes of {self.run.recipe().data.name}, "
                f"which are not the {len(classes)} of this data",
                hint="teacher and student need the same data set: see data: in both recipes",
            )

    def check_unchanged(self) -> None:
        """Raise if the weights or buffers that were loaded changed while they taught.

        Raises:
            RunError: They did: the student did not learn from the teacher it names.
        """
        if self._as_loaded is not None and state_sha256(self.trained.module.state_dict()) != self._as_loaded:
            raise RunError(f"the teacher {self.run} changed during training; this is a bug of distill")
