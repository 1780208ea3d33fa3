"""A recipe as YAML text: every default spelled out, in the schema's order, on as few lines as read well."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from inspect import get_annotations
from pathlib import Path
from typing import Any

from distill.recipe.base import Spec
from distill.recipe.schema import Recipe
from distill.recipe.yaml_tree import parse_scalar

__all__ = ["compared_settings", "dump_recipe", "flat_settings", "of_any_seed"]

WIDTH = 110
_INDENT = "  "
_TAGS = ("source", "name", "kind")

# Text that needs no quotes, here or in a YAML 1.1 reader.
_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./+-]*")
_YAML_1_1_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


def dump_recipe(recipe: Recipe | str | os.PathLike[str]) -> str:
    """Return YAML text that loads back to an equal recipe.

    Args:
        recipe: A recipe, a path, or a bundled name.

    A section that fits on one line is written in braces; a longer one has one line per key.

    Example:
        >>> print(dump_recipe("r18_small").splitlines()[1])
        name: r18_small
    """
    if not isinstance(recipe, Recipe):
        from distill.recipe.load import load_recipe  # which writes recipes into its messages

        recipe = load_recipe(recipe)
    return "".join(line + "\n" for line in _block(_tree(recipe), ""))


def flat_settings(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A recipe's tree by the names that ``--set`` takes.

    >>> flat_settings({"optim": {"lr": 0.1}, "name": "a"})
    {'optim.lr': 0.1, 'name': 'a'}
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flat_settings(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def of_any_seed(recipe: Recipe) -> Recipe:
    """A run's recipe without what runs of one recipe differ in: seed, threads, and which run of its name teaches."""
    teacher = recipe.teacher
    if teacher is not None and teacher.run is not None:
        teacher = teacher.model_copy(update={"run": Path(teacher.run).parent.name, "logits": "auto", "threads": "auto"})
    train = recipe.train.model_copy(update={"seed": 0, "threads": "auto"})  # threads change the last bits of sums
    return recipe.model_copy(update={"train": train, "teacher": teacher})


def compared_settings(recipe: Recipe) -> dict[str, Any]:
    """What tells recipes apart, by the names that ``--set`` takes: all but what runs of one recipe may differ in."""
    return flat_settings(recipe.model_dump(mode="json", exclude={"train": {"seed", "threads"}, "teacher": {"threads"}}))


def _tree(value: Any) -> Any:
    if isinstance(value, Spec):
        names = _sections(value) if isinstance(value, Recipe) else _ordered_fields(type(value))
        more = {name: _tree(each) for name, each in (value.__pydantic_extra__ or {}).items()}
        return {name: _tree(getattr(value, name)) for name in names} | more
    return [_tree(item) for item in value] if isinstance(value, tuple) else value


def _sections(recipe: Recipe) -> list[str]:
    """All of them, but ``search`` where there is none: no run has it, and keys are made of this text."""
    return [name for name in type(recipe).model_fields if name != "search" or recipe.search is not None]


def _ordered_fields(kind: type[Spec]) -> list[str]:
    """Tags first, then a class's own keys, then the ones that it shares with its kin."""
    own_first = dict.fromkeys(name for base in kind.__mro__ for name in get_annotations(base))
    tags = [name for name in _TAGS if name in kind.model_fields]
    return list(dict.fromkeys(tags + [name for name in own_first if name in kind.model_fields] + [*kind.model_fields]))


def _block(section: dict[str, Any], indent: str) -> list[str]:
    lines = []
    for key, value in section.items():
        line = f"{indent}{key}: {_flow(value)}"
        if len(line) <= WIDTH or not isinstance(value, dict | list):
            lines.append(line)
        elif isinstance(value, list):
            lines += _wrapped(f"{indent}{key}: [", [_flow(item) for item in value])
        else:
            lines += [f"{indent}{key}:", *_block(value, indent + _INDENT)]
    return lines


def _wrapped(start: str, items: list[str]) -> list[str]:
    """A long list over several lines, each continued under its first item."""
    lines, line = [], start
    for position, item in enumerate(items):
        piece = item + ("]" if position == len(items) - 1 else ",")
        if len(line) + len(piece) + 1 > WIDTH and line.strip() != "" and line != start:
            lines.append(line.rstrip())
            line = " " * len(start)
        line += piece if line == start or not line.strip() else f" {piece}"
    return [*lines, line]


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    return _text(value) if isinstance(value, str) else _number(value)


def _number(value: bool | int | float | None) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = repr(value)
    # YAML 1.1 readers take 1e-05 for text; 1.0e-05 is a number to all of them
    return re.sub(r"^(-?\d+)e", r"\1.0e", text)


def _text(value: str) -> str:
    if _PLAIN.fullmatch(value) and value.casefold() not in _YAML_1_1_WORDS and isinstance(parse_scalar(value), str):
        return value
    return '"' + "".join(_escaped(character) for character in value) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02X}" if code < 0x100 else f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"
