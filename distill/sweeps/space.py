"""What ``--grid`` and ``--search`` say: the recipe's keys that a sweep varies, and the values they may take."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from distill.errors import UsageError
from distill.recipe.overrides import Override, OverrideError, parse_override

__all__ = ["Axis", "Range", "Variable", "combinations", "parse_grid", "parse_search", "value_of"]

#: One choice for every swept key, as it would be written after ``--set key=``.
Params = dict[str, str]

_FIXED = ("name", "role", "schema_version", "data.root")  # trials are told apart wherever the data lies
_BRACKETS = {"[": "]", "{": "}"}
_GRID_HINT = "as in --grid optim.name=adam,sgd or --grid model.blocks=[2,2],[3,3]"
_SEARCH_HINT = "as in --search optim.lr=1e-4:1e-1:log, --search train.batch_size=32:256, --search optim.name=[adam,sgd]"


@dataclass(frozen=True)
class Axis:
    """A key and the values to choose from, as they were written; ``repeated`` are those that were written again."""

    key: str
    values: tuple[str, ...]
    repeated: tuple[str, ...] = ()


@dataclass(frozen=True)
class Range:
    """A key and the range to choose from, ends included; ``log`` spreads choices evenly over its logarithm."""

    key: str
    low: float
    high: float
    log: bool = False

    @property
    def has_whole_ends(self) -> bool:
        """Whether both ends are whole numbers, so that the key may be a count."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def middle(self) -> float:
        """A number between the ends that is not whole."""
        return math.floor((self.low + self.high) / 2) + 0.5


Variable = Axis | Range


def value_of(key: str, text: str) -> Any:
    """The value that ``--set key=text`` would set."""
    return parse_override(f"{key}={text}").value


def combinations(axes: Sequence[Axis]) -> list[Params]:
    """Every combination of values, the last axis changing fastest; one empty choice where there are no axes."""
    keys = [axis.key for axis in axes]
    return [dict(zip(keys, values, strict=True)) for values in itertools.product(*(axis.values for axis in axes))]


def parse_grid(texts: Sequence[str]) -> tuple[Axis, ...]:
    """Read every ``key=value,value``; commas within brackets, braces and quotes separate nothing.

    Raises:
        UsageError: One line for each that cannot be read.
    """
    return tuple(_parse_all(texts, "--grid", _grid_axis, _GRID_HINT))


def parse_search(texts: Sequence[str]) -> tuple[Variable, ...]:
    """Read every ``key=LOW:HIGH``, ``key=LOW:HIGH:log`` or ``key=[value, value]``.

    Raises:
        UsageError: One line for each that cannot be read.
    """
    return tuple(_parse_all(texts, "--search", _search_variable, _SEARCH_HINT))


def _parse_all(texts: Sequence[str], option: str, parse: Any, hint: str) -> list[Any]:
    parsed: list[Any] = []
    problems = []
    for text in texts:
        try:
            variable = parse(text)
            if variable.key in [each.key for each in parsed]:
                raise ValueError(f"{variable.key} is given twice")
            parsed.append(variable)
        except ValueError as error:
            problems.append(f"{option} {text}: {str(error).removeprefix(f'--set {text}: ')}")
    if problems:
        raise UsageError("\n".join(problems), hint=hint)
    return parsed


def _key_and_text(text: str) -> tuple[str, str]:
    key, equals, rest = text.partition("=")
    key = ".".join(part.strip() for part in key.split("."))
    if not equals:
        raise ValueError("no '='")
    if key in _FIXED:
        raise ValueError(f"a sweep keeps the recipe's {key}")
    return key, rest.strip()


def _grid_axis(text: str) -> Axis:
    key, rest = _key_and_text(text)
    return _axis(key, _split(rest))


def _axis(key: str, values: Sequence[str]) -> Axis:
    """The values, each once (``0.1`` and ``1e-1`` are one); a value that is no YAML is an error."""
    kept: list[Override] = []
    repeated: list[str] = []
    for value in values:
        try:
            override = parse_override(f"{key}={value}")
        except OverrideError as error:
            raise ValueError(str(error).removeprefix(f"--set {error.text}: ")) from None
        if any(other.value == override.value and _kind(other.value) is _kind(override.value) for other in kept):
            repeated.append(value)
        else:
            kept.append(override)
    return Axis(key, tuple(override.text.partition("=")[2] for override in kept), tuple(repeated))


def _kind(value: object) -> type:
    return float if type(value) is int else type(value)  # 4 and 4.0 are one number, 1 and true are not


def _split(text: str) -> list[str]:
    """``text`` at its outermost commas."""
    pieces, closing, quote = [""], [], ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"" and pieces[-1].strip()[-1:] in ("", "[", "{", ",", ":"):
            quote = char
        elif char in _BRACKETS:
            closing.append(_BRACKETS[char])
        elif closing and char == closing[-1]:
            closing.pop()
        elif char == "," and not closing:
            pieces.append("")
            continue
        pieces[-1] += char
    return [piece.strip() for piece in pieces]


def _search_variable(text: str) -> Variable:
    key, rest = _key_and_text(text)
    if rest.startswith("[") and rest.endswith("]"):
        return _axis(key, _split(rest[1:-1]))
    low_text, *others = rest.split(":")
    if len(others) not in (1, 2) or others[1:] not in ([], ["log"]):
        raise ValueError("neither LOW:HIGH, LOW:HIGH:log nor [a, b]")
    low, high = (_number(key, each) for each in (low_text, others[0]))
    if low >= high:
        raise ValueError(f"{low_text} is not below {others[0]}")
    log = others[1:] == ["log"]
    if log and low <= 0:
        raise ValueError("a logarithmic range begins above 0")
    return Range(key, low, high, log)


def _number(key: str, text: str) -> float:
    try:
        value = value_of(key, text)
    except OverrideError:
        value = None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{text!r} is not a number")
    return value
