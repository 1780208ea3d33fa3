"""Where everything a command says goes: tables and JSON to stdout, notes, warnings and errors to stderr."""

from __future__ import annotations

import codecs
import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import typer
from rich.console import Console, RenderableType
from rich.text import Text

from distill.errors import DistillError, UsageError, was_stopped
from distill.files import write_atomically
from distill.team.ranks import process_rank
from distill.text import plain, plain_lines, several

__all__ = ["PLAINER", "Output", "jsonable", "open_console", "show_error"]

PLAINER = "distill-plainer"
"""How text is written where a character does not exist: by one that means the same, or escaped."""

_SIGNS = {
    "\N{MINUS SIGN}": "-",
    "\N{EN DASH}": "-",
    "\N{EM DASH}": "-",
    "\N{PLUS-MINUS SIGN}": "+-",
    "\N{MULTIPLICATION SIGN}": "x",
    "\N{HORIZONTAL ELLIPSIS}": "...",
    "\N{RIGHTWARDS ARROW}": "->",
    "\N{MICRO SIGN}": "u",
    "\N{SUPERSCRIPT TWO}": "2",
    "\N{COPYRIGHT SIGN}": "(c)",
    "\N{GREEK CAPITAL LETTER DELTA}": "D",
    "\N{FULL BLOCK}": "#",
}
_LINES = dict.fromkeys("─━═╌╴╶", "-") | dict.fromkeys("│┃║", "|") | dict.fromkeys("┏┓┗┛┌┐└┘┡┩╇┼├┤┬┴╭╮╰╯", "+")
_PLAINER = _SIGNS | _LINES

_PIPE_WIDTH = 10_000  # a pipe has no width: whoever reads it gets every column on one line


def _plainer(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    escaped = (char.encode("ascii", "backslashreplace").decode() for char in error.object[error.start : error.end])
    chars = error.object[error.start : error.end]
    return "".join(_PLAINER.get(char, other) for char, other in zip(chars, escaped, strict=True)), error.end


codecs.register_error(PLAINER, _plainer)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Go on in silence: ``| head`` ends the printing, not the command and its exit code."""
        self.quiet = True
        mute(sys.stderr if self.stderr else sys.stdout)


def mute(stream: TextIO) -> None:
    """Send what is still buffered, and all that follows, nowhere, so that the interpreter can exit cleanly."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def open_console(*, stderr: bool = False) -> Console:
    """A console on stdout or stderr that never interprets, highlights or shortens what users named."""
    console = _Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPE_WIDTH
    return console


def show_error(error: DistillError) -> None:
    """Print the error's lines and its hint to stderr, aligned."""
    stopped = was_stopped(error)
    label, style = ("stopped", "bold yellow") if stopped else ("error", "bold red")
    if process_rank() != 0:  # torchrun's first process says what all know; what only this one met must be said too
        if stopped:
            return
        label = f"error in process {process_rank()}"
    _say(label, error.message, style)
    if error.hint:
        _say("hint", error.hint, "bold cyan")


def _say(label: str, message: str, style: str) -> None:
    """``label: message``, later lines below the first."""
    head = "hint:  " if label == "hint" else f"{label}: "  # below "error: "
    lines = [plain(line) for line in message.splitlines()]
    body = ("\n" + " " * len(head)).join(lines)
    open_console(stderr=True).print(Text.assemble((head, style), body), soft_wrap=True)


class Output:
    """What a command prints, by kind.

    Args:
        json: stdout gets one JSON document and no table.
        quiet: no notes; warnings and errors stay.
    """

    def __init__(self, *, json: bool = False, quiet: bool = False) -> None:
        self.is_json = json
        self.quiet = quiet or process_rank() != 0

    def show(self, value: Any, render: Callable[[int], RenderableType]) -> None:
        """Print ``value`` as JSON, or what ``render`` makes of it at the width of stdout."""
        if self.is_json:
            self.json(value)
        else:
            self.table(render)

    def table(self, render: Callable[[int], RenderableType]) -> None:
        """Print a table to stdout; ``render`` is told the width in characters."""
        console = open_console()
        console.print(render(console.width))

    def json(self, value: Any) -> None:
        """Print one JSON document to stdout; dataclasses and paths are converted, NaN and infinity are null."""
        self.text(json.dumps(jsonable(value), indent=2, allow_nan=False))

    def text(self, text: str) -> None:
        """Print text to stdout, ending in one newline: exact to a file or a pipe, spelled out to a terminal."""
        if sys.stdout is None:  # closed by who called: nobody listens
            return
        try:
            _print(text.rstrip("\n") + "\n", sys.stdout)
        except BrokenPipeError:
            mute(sys.stdout)

    def text_file(self, text: str, target: str) -> None:
        """Write a table as text to a file, or to stdout where ``target`` is ``-``."""
        if target == "-":
            self.text(text)
        else:
            self.file(text, Path(target))

    def file(self, text: str, path: Path) -> None:
        """Write a file that was asked for, and say so.

        Raises:
            DistillError: It cannot be written there.
        """
        write_atomically(path, _exact(text, "utf-8"))
        self.note(f"wrote {path}")

    def note(self, message: str) -> None:
        """Say something useful on stderr, unless asked to be quiet."""
        if not self.quiet:
            _say("note", message, "dim")

    def warning(self, message: str) -> None:
        """Say on stderr that something is not as the user may think."""
        _say("warning", message, "bold yellow")

    def confirm_deletion(self, what: str, places: Sequence[str]) -> None:
        """Go on where the user agrees; else end the command.

        Raises:
            UsageError: Nobody is there to ask.
            typer.Exit: The answer is no.
        """
        if not _is_answered():
            raise UsageError(f"this would delete {several(places, 6)}", hint="say so with --yes")
        if not typer.confirm(f"Delete {what}?", err=True):
            self.note("nothing was deleted")
            raise typer.Exit


def _is_answered() -> bool:
    """Whether somebody is there to ask."""
    return sys.stdin.isatty()


def _print(text: str, stream: TextIO) -> None:
    if stream.isatty():
        stream.write(plain_lines(text))
    elif (buffer := getattr(stream, "buffer", None)) is not None:
        stream.flush()
        buffer.write(_exact(text, stream.encoding))
    else:
        stream.write(text)
    stream.flush()


def _exact(text: str, encoding: str) -> bytes:
    """Names of files as the bytes that they are on disk; what an encoding lacks is spelled out."""
    try:
        return text.encode(encoding, "surrogateescape")
    except UnicodeEncodeError:
        return text.encode(encoding, "backslashreplace")


def jsonable(value: Any) -> Any:
    """``value`` in the types of JSON: ``to_json`` where an object has it, else the fields of a dataclass."""
    if hasattr(value, "to_json"):
        return jsonable(value.to_json())
    if dataclasses.is_dataclass(value):
        return {field.name: jsonable(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): jsonable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(each) for each in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
