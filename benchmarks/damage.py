"""Ways to damage text and files, drawn at random."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["TOKENS", "damage", "mutate_text"]

_SPELLINGS = (
    "{ } [ ] : , - # % | > ' \" @ ` \\ ~ & * ! ? << null true no on 0 -1 1e999 .nan .inf 1e-3 0x1F 0o17 1_000 1:30 "
    "2020-01-01 !!python/object:os.system !!binary &a *a [1,2] {a:1} --- ... "
    "\x00 \x1b[31m \ufeff \u2028 [red] =cmd() ../../x"
)
TOKENS = tuple(_SPELLINGS.split(" "))
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 10**30, 1e308, 0.5, "", "x", "../../etc/passwd", "\x1b[31m", "[red]",
    [], {}, [[]], {"a": 1}, ["x"] * 3,
)  # fmt: skip


def mutate_text(draw: random.Random, content: bytes) -> bytes:
    for _ in range(draw.randint(1, 4)):
        content = _mutated(draw, content)
    return content


def _mutated(draw: random.Random, content: bytes) -> bytes:
    lines = content.split(b"\n")
    at = draw.randrange(len(content) + 1)
    number = draw.randrange(len(lines))
    before, line, after = lines[:number], lines[number], lines[number + 1 :]
    ways: list[Callable[[], bytes]] = [
        lambda: content[:at] + draw.choice(TOKENS).encode() + content[at:],
        lambda: content[:at] + content[at + draw.randint(1, 8) :],
        lambda: content[:at] + draw.randbytes(draw.randint(1, 4)) + content[at:],
        lambda: b"\n".join([*before, *after]),
        lambda: b"\n".join([*before, line, line, *after]),
        lambda: b"\n".join([*before, b"  " + line, *after]),
        lambda: b"\n".join([*before, line.partition(b":")[0] + b": " + _value(draw), *after]),
    ]
    return draw.choice(ways)()


def _value(draw: random.Random) -> bytes:
    return draw.choice([*TOKENS, json.dumps(draw.choice(_VALUES))]).encode()


def damage(draw: random.Random, path: Path) -> str:
    """Damage a file in one of many ways, and say how."""
    content = path.read_bytes() if path.is_file() else b""
    ways: list[Callable[[], str]] = [
        lambda: _put(path, None, "deleted"),
        lambda: _put(path, b"", "emptied"),
        lambda: _put(path, content[: draw.randrange(len(content) or 1)], "cut short"),
        lambda: _put(path, _flipped(draw, content), "with flipped bits"),
        lambda: _put(path, mutate_text(draw, content), "with other bytes"),
        lambda: _folder_for(path),
        lambda: _link_for(path),
        lambda: _pipe_for(path),
    ]
    if path.suffix in (".json", ".jsonl") and path.is_file():
        ways += [lambda: _put(path, _other_json(draw, content), "with other values")] * 4
    return draw.choice(ways)()


def _put(path: Path, content: bytes | None, how: str) -> str:
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    return how


def _folder_for(path: Path) -> str:
    path.unlink()
    path.mkdir()
    return "replaced by a folder"


def _link_for(path: Path) -> str:
    path.unlink()
    path.symlink_to(path.name)
    return "replaced by a link to itself"


def _pipe_for(path: Path) -> str:
    path.unlink()
    os.mkfifo(path)
    return "replaced by a pipe"


def _flipped(draw: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.randint(1, 8) if changed else 0):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _other_json(draw: random.Random, content: bytes) -> bytes:
    """One value of one document replaced by another; a digest in it is made to fit, as a forger would."""
    lines = content.split(b"\n") if content.count(b"\n{") else [content]
    number = draw.randrange(len(lines))
    try:
        tree = json.loads(lines[number])
    except ValueError:
        return content + b"{}"
    _replace(draw, tree)
    if isinstance(tree, dict) and isinstance(tree.get("sha256"), dict):  # of a checkpoint
        from distill.files import json_sha256

        bare = {key: value for key, value in tree.items() if key != "sha256"}
        tree["sha256"]["meta"] = json_sha256(bare)
    elif isinstance(tree, dict):
        tree.pop("sha256", None)
    lines[number] = json.dumps(tree).encode()
    return b"\n".join(lines)


def _replace(draw: random.Random, tree: Any) -> None:
    while isinstance(tree, dict | list) and tree:
        key = draw.choice(list(tree)) if isinstance(tree, dict) else draw.randrange(len(tree))
        if not isinstance(tree[key], dict | list) or not tree[key] or draw.random() < 0.3:
            if isinstance(tree, dict) and draw.random() < 0.2:
                del tree[key]
            else:
                tree[key] = draw.choice(_VALUES)
            return
        tree = tree[key]
