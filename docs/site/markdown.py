"""What the makers of pages share: text as Markdown, links and blocks of code found, anchors as GitHub gives them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from markdown_it import MarkdownIt
from markdown_it.token import Token

__all__ = ["Fence", "Link", "anchors", "escaped", "fences", "links"]

_PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
_CODE = re.compile(r"(?<![\w`-])(--[a-z][\w-]*|\$[A-Z_]+)")


@dataclass(frozen=True)
class Link:
    """Where a page points.

    Attributes:
        target: As it is written.
        line: Of the paragraph that holds it, from 1.
    """

    target: str
    line: int


@dataclass(frozen=True)
class Fence:
    """A block of code.

    Attributes:
        language: Its first word, as `yaml`; empty where none is named.
        text: What it holds.
        line: Of its first fence, from 1.
    """

    language: str
    text: str
    line: int


def escaped(text: str) -> str:
    """Plain text as Markdown that reads as that text; options and variables are code."""
    return _CODE.sub(r"`\1`", re.sub(r"([\\`*<>\[\]|]|\b_|_\b)", r"\\\1", text))


def links(text: str) -> Iterator[Link]:
    """Every link and picture of a page, in its order."""
    for token in _PARSER.parse(text):
        for child in token.children or ():
            target = child.attrGet("href") or child.attrGet("src")
            if isinstance(target, str):
                yield Link(target, (token.map or [0])[0] + 1)


def fences(text: str) -> Iterator[Fence]:
    """Every fenced block of a page, in its order, those in lists too."""
    for token in _PARSER.parse(text):
        if token.type == "fence":
            yield Fence(token.info.split(" ")[0], token.content, (token.map or [0])[0] + 1)


def anchors(text: str) -> set[str]:
    """What a link may name behind ``#``: each heading in small letters, without marks, joined by hyphens."""
    found: set[str] = set()
    tokens = _PARSER.parse(text)
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            name = _slug(inline)
            count = 1
            while (unique := name if count == 1 else f"{name}-{count - 1}") in found:
                count += 1
            found.add(unique)
    return found


def _slug(heading: Token) -> str:
    words = "".join(child.content for child in heading.children or () if child.type in ("text", "code_inline"))
    return re.sub(r"[^\w\- ]", "", words.strip().lower()).replace(" ", "-")
