"""A teacher that is here as an ONNX file: known by its bytes, opened when it is found."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import torch

from distill.data.batches import Loader
from distill.data.splits import Splits
from distill.devices import using_threads
from distill.errors import RunError, UsageError
from distill.files import json_sha256, sha256_file
from distill.models.fixed_batch import CPU_BATCH, ask
from distill.models.onnx_teacher import OnnxTeacher, open_onnx_teacher
from distill.recipe.schema import TeacherSpec
from distill.teaching.identity import Identity
from distill.teaching.key import BankKey
from distill.teaching.rounding import check_logits, largest_of
from distill.teaching.runtime import ONNXRUNTIME, Forward
from distill.teaching.teacher_run import TeacherRun

__all__ = ["Teacher", "TeacherFile"]


class TeacherFile:
    """A file that teaches; it has what :class:`TeacherRun` has, but a run.

    Args:
        classes: The data's: the file's outputs are brought into their order.

    Raises:
        UsageError, RunError: As :func:`open_onnx_teacher`.
    """

    run = None
    recipe = None  # it has logits alone

    def __init__(self, spec: TeacherSpec, classes: tuple[str, ...]) -> None:
        assert spec.onnx is not None
        self.path, self._spec = Path(spec.onnx), spec
        self.device = torch.device("cpu")
        self.trained = self._opened(classes, spec.thread_count)
        self._forward: dict[int | None, OnnxTeacher] = {spec.thread_count: self.trained}

    def _opened(self, classes: tuple[str, ...], threads: int | None) -> OnnxTeacher:
        count = threads or torch.get_num_threads()
        spec = self._spec
        return open_onnx_teacher(self.path, given=spec.input, named=spec.classes, classes=classes, threads=count)

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem

    @property
    def place(self) -> str:
        """The file."""
        return str(self.path)

    @property
    def home(self) -> Path:
        """The folder that holds its banks."""
        return self.path.absolute().parent

    @cached_property
    def identity(self) -> Identity:
        """Its bytes, and what the recipe says of its input and its classes."""
        teacher, normalize = self.trained, self.trained.normalize
        told = {"onnx": teacher.input.model_dump(mode="json"), "columns": teacher.columns, "uint8": teacher.takes_bytes}
        return Identity(
            weights=teacher.sha256,
            architecture=json_sha256(told),
            mean=normalize.mean,
            std=normalize.std,
            input_size=normalize.input_size,
            precision="fp32",
            classes=teacher.classes,
        )

    def forward_through(self, runtime: str, *, threads: int | None) -> Forward:
        """The file as ONNX Runtime asks it.

        Raises:
            UsageError: Another runtime is named.
        """
        if runtime != ONNXRUNTIME:
            raise UsageError(f"teacher.runtime {runtime} cannot ask {self.path}", hint="--set teacher.runtime=auto")
        if threads not in self._forward:
            self._forward[threads] = self._opened(self.trained.classes, threads)
        return self._forward[threads]

    def largest_logit(self, splits: Splits, *, threads: int | None = None) -> float:
        """The largest absolute logit it answers to a few training images.

        Raises:
            RunError: It is NaN or infinite.
            UsageError: Its answers are probabilities.
        """
        batch = next(Loader(splits.train, device=self.device).plain(CPU_BATCH))
        with using_threads(threads):
            answers = ask(self.trained, batch.images)
        largest = largest_of(answers).item()
        check_logits(largest, teacher=self.place, dtype="float32")
        if bool(
            (answers >= 0).all() and (answers.sum(dim=1) <= 1.001).all()
        ):  # of classes that the data lacks the rest
            raise UsageError(
                f"the teacher {self.place} answers probabilities, and not logits",
                hint="export it without its last Softmax",
            )
        return largest

    def bank_path(self, key: BankKey) -> Path:
        """Where a bank of its answers lives: beside the file, by its key."""
        return self.path.with_name(f"{self.path.stem}.banks") / key.digest()[:16]

    def require_classes(self, classes: tuple[str, ...]) -> None:
        """Nothing is left to check: it was opened for them."""
        assert self.trained.classes == classes

    def check_unchanged(self) -> None:
        """Raise if the file has other bytes than it had when it began to teach.

        Raises:
            RunError: It has.
        """
        if not self.path.is_file() or sha256_file(self.path) != self.trained.sha256:
            raise RunError(f"the teacher {self.path} changed during training", hint="restore it, and train anew")


Teacher = TeacherRun | TeacherFile
"""Whoever teaches and is here."""
