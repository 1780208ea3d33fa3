"""YAML text to plain values, with the line of every key and value, and every problem found on the way.

ruamel.yaml scans and parses; the values are made here, straight from its events, because a recipe is data and nothing
else: no anchors, aliases, merge keys, tags or several documents. Reading events rather than nodes also bounds the work:
a document that is too deep or too long is given up on before it costs time or stack.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from distill.files import has_controls
from distill.text import plain, shorten

__all__ = [
    "BROKEN",
    "KeyPath",
    "Problem",
    "YamlTree",
    "join_path",
    "parse_scalar",
    "read_yaml",
    "show",
]

KeyPath = tuple[str | int, ...]

MAX_DEPTH = 20
MAX_EVENTS = 20_000

#: Stands for a value that was refused while reading. No schema accepts it, so nothing is built from it by accident.
BROKEN: dict[str, Any] = {"\0": None}

_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LINE_BREAK = re.compile("\r\n|\r|\n")

# YAML 1.2's core schema, and underscores between digits. `no`, `on`, `1:30` and dates are text.
_NULL = re.compile("~|null|Null|NULL|")
_TRUE = re.compile("true|True|TRUE")
_FALSE = re.compile("false|False|FALSE")
_INT = re.compile("[-+]?[0-9]+(_[0-9]+)*|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(_[0-9]+)*(\.([0-9]+(_[0-9]+)*)?)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(frozen=True)
class Problem:
    """One thing that cannot be read: its line (from 1), the path of its key, and what is wrong."""

    line: int
    path: KeyPath
    text: str


@dataclass
class YamlTree:
    """A document as plain dicts, lists and scalars.

    ``value`` is ``None`` where ``fatal``: the text could not be read to its end. ``lines`` maps a path to the lines of
    its key and of its value; ``written`` maps it to a number or null as it was written, for messages.
    """

    value: Any = None
    lines: dict[KeyPath, tuple[int, int]] = field(default_factory=dict)
    written: dict[KeyPath, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    fatal: bool = False
    empty: bool = False
    block: bool = False


class _UnreadableError(Exception):
    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


def read_yaml(text: str) -> YamlTree:
    """Read one YAML document. Never raises: whatever is wrong is in ``problems``."""
    text = text.removeprefix("\ufeff")
    tree = YamlTree()
    bad = _UNPRINTABLE.search(text)
    if bad:
        line = len(_LINE_BREAK.findall(text, 0, bad.start())) + 1
        tree.problems.append(Problem(line, (), f"not text: it has the control character U+{ord(bad.group()):04X}"))
        tree.fatal = True
        return tree
    try:
        _Reader(text, tree).document()
    except _UnreadableError as error:
        tree.value, tree.fatal = None, True
        tree.problems.append(Problem(error.line, (), plain(str(error))))
    return tree


def parse_scalar(text: str) -> Any:
    """The value of an unquoted scalar.

    Raises:
        ValueError: It is a number that cannot be used: infinite, not a number, or beyond 64 bits.
    """
    for pattern, value in ((_NULL, None), (_TRUE, True), (_FALSE, False)):
        if pattern.fullmatch(text):
            return value
    if _INT.fullmatch(text):
        return _parse_int(text)
    if _FLOAT.fullmatch(text):
        number = float(text.replace("_", ""))
        if math.isinf(number):
            raise ValueError(f"{shorten(text)} is too large a number")
        return number
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"should be a finite number, got {text}")
    return text


def _parse_int(text: str) -> int:
    base = {"0x": 16, "0o": 8}.get(text[:2], 10)
    digits = text.replace("_", "")
    # Python refuses to read thousands of digits, and the schema's numbers are 64-bit at most
    number = int(digits, base) if len(digits) <= 40 else 2**63
    if abs(number) >= 2**63:
        raise ValueError(f"{shorten(text)} is too large a number")
    return number


def show(value: Any) -> str:
    """A value in a message: on one line, short, as YAML would have it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return shorten(repr(value))
    if isinstance(value, dict):
        return "{" + ", ".join(shorten(str(key), 20) for key in list(value)[:4]) + (", ..." * (len(value) > 4)) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(show(item) for item in value[:4]) + (", ..." * (len(value) > 4)) + "]"
    return shorten(str(value))


def join_path(path: KeyPath) -> str:
    """``optim.lr``, ``model.blocks[1]``; keys that need it are escaped to stay on one line."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + shorten(plain(part))
    return text


class _Reader:
    """Builds the tree from the events of one document."""

    def __init__(self, text: str, tree: YamlTree) -> None:
        self._events = _events(text)
        self._tree = tree

    def document(self) -> None:
        tree = self._tree
        next(self._events)  # the stream's start
        start = next(self._events)
        if type(start).__name__ != "DocumentStartEvent":
            tree.empty = True
            return
        if start.version is not None and tuple(start.version) != (1, 2):
            self._problem(start, (), f"%YAML {'.'.join(map(str, start.version))}: recipes are YAML 1.2")
        root = next(self._events)
        tree.block = hasattr(root, "flow_style") and not root.flow_style
        tree.lines[()] = (_line(root), _line(root))
        tree.value = self._node(root, ())
        tree.empty = tree.value is None and not getattr(root, "value", "")
        next(self._events)  # the document's end
        after = next(self._events)
        if type(after).__name__ == "DocumentStartEvent":
            raise _UnreadableError(_line(after), "a second document begins here; a file holds one recipe")

    def _node(self, event: Any, path: KeyPath) -> Any:
        refused = _refusal(event)
        if refused:
            self._problem(event, path, _at(path, refused))
            self._skip(event)
            return BROKEN
        kind = type(event).__name__
        if kind == "MappingStartEvent":
            return self._mapping(path)
        if kind == "SequenceStartEvent":
            return self._sequence(path)
        return self._scalar(event, path)

    def _mapping(self, path: KeyPath) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        while type(event := next(self._events)).__name__ != "MappingEndEvent":
            key = self._key(event, path)
            value_event = next(self._events)
            if key is None:
                self._skip(value_event)
                continue
            here = (*path, key)
            if key in mapping:
                first = self._tree.lines[here][0]
                self._problem(event, here, f"key '{join_path(here)}' is given twice (first at line {first})")
                self._skip(value_event)
                continue
            empty = getattr(value_event, "value", None) == ""  # its mark may lie on the next line
            self._tree.lines[here] = (_line(event), _line(event) if empty else _line(value_event))
            mapping[key] = self._node(value_event, here)
        return mapping

    def _key(self, event: Any, path: KeyPath) -> str | None:
        refused = _refusal(event)
        if refused:
            pass
        elif type(event).__name__ != "ScalarEvent":
            refused = "a key should be text, not a list or a mapping"
        elif event.style is None and event.value == "<<":
            refused = "merge keys (<<) are not supported; write the keys out"
        elif not _is_text(event):
            refused = f"a key should be text, got {shorten(event.value) or 'nothing'}"
        elif has_controls(event.value):
            refused = f"key {show(event.value)} has control characters"
        else:
            return event.value
        self._problem(event, path, _at(path, refused))
        self._skip(event)
        return None

    def _sequence(self, path: KeyPath) -> list[Any]:
        items: list[Any] = []
        while type(event := next(self._events)).__name__ != "SequenceEndEvent":
            here = (*path, len(items))
            self._tree.lines[here] = (_line(event), _line(event))
            items.append(self._node(event, here))
        return items

    def _scalar(self, event: Any, path: KeyPath) -> Any:
        if event.style is not None:
            value: Any = event.value
        else:
            try:
                value = parse_scalar(event.value)
            except ValueError as error:
                self._problem(event, path, _at(path, str(error)))
                return BROKEN
        if isinstance(value, str) and has_controls(value):
            self._problem(event, path, _at(path, f"{show(value)} has control characters"))
            return BROKEN
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            self._tree.written[path] = event.value or "nothing"
        return value

    def _skip(self, event: Any) -> None:
        """Read past a node that is not wanted."""
        depth = _opens(event)
        while depth > 0:
            depth += _opens(next(self._events))

    def _problem(self, event: Any, path: KeyPath, text: str) -> None:
        self._tree.problems.append(Problem(_line(event), path, plain(text)))


def _at(path: KeyPath, text: str) -> str:
    return f"{join_path(path)}: {text}" if path else text


def _events(text: str) -> Iterator[Any]:
    """ruamel's events, with its errors translated, ended by an error where there are too many or they nest too deep."""
    line, depth = 1, 0
    try:
        for count, event in enumerate(YAML(typ="safe", pure=True).parse(text)):
            line = _line(event)
            depth += _opens(event)
            if count > MAX_EVENTS:
                raise _UnreadableError(line, f"more than {MAX_EVENTS} keys and values; this is no recipe")
            if depth > MAX_DEPTH:
                raise _UnreadableError(line, f"nested more than {MAX_DEPTH} levels deep")
            yield event
    except _UnreadableError:
        raise
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _UnreadableError(mark.line + 1 if mark else line, _syntax_words(error)) from None
    except Exception as error:  # ruamel lets ValueError, OverflowError and others escape on odd input
        raise _UnreadableError(line, f"not valid YAML ({shorten(' '.join(str(error).split()))})") from None


_SYNTAX_WORDS = {
    "mapping values are not allowed here": "a ':' that cannot stand here; check the indentation, or quote the text",
    "could not find expected ':'": "a key without its ':'",
}


def _syntax_words(error: Any) -> str:
    problem = " ".join(str(error.problem).split())
    if "'\\t'" in problem:
        return "not valid YAML: a tab; indent with spaces"
    problem = re.sub(r"\('(.*)',\)", r"'\1'", _SYNTAX_WORDS.get(problem, problem))
    problem = re.sub(r"'(<stream end>|\\x00)'", "the end of the file", shorten(problem, 100))
    if error.context and error.context_mark:
        problem += f" ({error.context} from line {error.context_mark.line + 1})"
    return f"not valid YAML: {problem}"


def _refusal(event: Any) -> str | None:
    if type(event).__name__ == "AliasEvent":
        return f"aliases (*{shorten(event.anchor)}) are not supported; write the value out"
    if getattr(event, "anchor", None) is not None:
        return f"anchors (&{shorten(event.anchor)}) are not supported; write the value out where it is used"
    if getattr(event, "tag", None) is not None:
        return f"tags ({shorten(str(event.tag)).replace('tag:yaml.org,2002:', '!!')}) are not supported"
    return None


def _is_text(event: Any) -> bool:
    try:
        return event.style is not None or isinstance(parse_scalar(event.value), str)
    except ValueError:
        return False


def _opens(event: Any) -> int:
    name = type(event).__name__
    if name in ("MappingStartEvent", "SequenceStartEvent"):
        return 1
    return -1 if name in ("MappingEndEvent", "SequenceEndEvent") else 0


def _line(event: Any) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1
