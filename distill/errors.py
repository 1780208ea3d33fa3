"""Errors a user can cause or meet, each with one clear line, a hint, and the exit code of the command line.

Anything that is not a :class:`DistillError` is a bug of distill's own and keeps its traceback.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "BudgetError",
    "DataError",
    "DistillError",
    "DivergedError",
    "GateMissedError",
    "InterruptedRunError",
    "MissingError",
    "NoRunError",
    "NotPrunableError",
    "OutOfMemoryError",
    "PeerLostError",
    "RecipeError",
    "RunError",
    "Terminated",
    "TerminatedRunError",
    "UsageError",
    "stop_error",
    "was_stopped",
]


class DistillError(Exception):
    """Base class of every error that a user can cause or meet: ``exit_code`` 1, the run failed.

    Args:
        message: One line that says what is wrong and where. Several mistakes in one recipe are several lines.
        hint: What to do next, often a command to copy.

    As text it has both, in two lines.

    Example:
        >>> try:
        ...     load_recipe("r18_smal")
        ... except DistillError as error:
        ...     print(error.message, error.exit_code)
        'r18_smal': no such recipe, and no bundled recipe (did you mean 'r18_small'?) 2
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\nhint: {self.hint}"

    def __reduce__(
        self,
    ) -> tuple[Any, ...]:  # keyword-only arguments do not survive pickling between processes by default
        return (_rebuild, (type(self), self.message, self.hint))


def _rebuild(kind: type[DistillError], message: str, hint: str | None) -> DistillError:
    return kind(message, hint=hint)


class RunError(DistillError):
    """A run could not be created, opened, resumed, or went wrong (exit code 1)."""


class NoRunError(RunError):
    """No run, and no network that comes trained, is called so: mistyped, most likely (exit code 2)."""

    exit_code = 2


class DivergedError(RunError):
    """A loss was not finite: the run's own settings are to blame, not the machine (exit code 1)."""


class OutOfMemoryError(RunError):
    """Memory was exhausted, of a device or of the machine: a smaller batch or network may fit (exit code 1)."""


class PeerLostError(RunError):
    """Another process of the same run is gone: what ended that one explains it, and this one only noticed."""


class DataError(DistillError):
    """Data that was found but cannot be used: damaged files, empty classes (exit code 1)."""


class UsageError(DistillError):
    """The command or the arguments are wrong (exit code 2)."""

    exit_code = 2


class NotPrunableError(UsageError):
    """A network has no channels that can be cut, whatever the goal (exit code 2)."""


class RecipeError(UsageError):
    """A recipe or an override is wrong; ``message`` has one line for each mistake (exit code 2)."""


class BudgetError(RecipeError):
    """A model has more parameters than ``model.max_params`` allows (exit code 2)."""


class GateMissedError(DistillError):
    """A stated requirement was measured and missed (exit code 3)."""

    exit_code = 3


class MissingError(DistillError):
    """The environment lacks something: data, a GPU, weights, an optional package (exit code 4)."""

    exit_code = 4


class InterruptedRunError(DistillError):
    """The user interrupted the command (exit code 130)."""

    exit_code = 130


class TerminatedRunError(DistillError):
    """The machine asked the command to stop, by SIGTERM (exit code 143)."""

    exit_code = 143


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP where no run trains: like Ctrl-C it passes every ``except Exception`` on its way out."""


def stop_error(stopped: KeyboardInterrupt) -> DistillError:
    """What is told of a process that was stopped by a signal, with the signal's exit code."""
    if isinstance(stopped, Terminated):
        return TerminatedRunError(str(stopped) or "terminated")
    return InterruptedRunError("interrupted")


def was_stopped(error: BaseException) -> bool:
    """Whether something was ended on purpose, by a user, a machine, or a search that saw enough, and did not fail."""
    return isinstance(error, KeyboardInterrupt | InterruptedRunError | TerminatedRunError)
