"""Every key of a recipe for people to read: what it takes, its default, and what it is for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from distill.recipe.shape import (
    Node,
    is_tagged,
    join_words,
    members,
    resolve,
    root_node,
    tag_keys,
    tag_values,
    variant_labels,
    variants,
    words,
)
from distill.recipe.yaml_tree import show

__all__ = ["SchemaKey", "describe_schema"]


@dataclass(frozen=True)
class SchemaKey:
    """One key of a recipe.

    Attributes:
        path: Dotted, as ``--set`` takes it.
        type: What it takes, in words.
        default: As YAML; ``required`` where there is none, empty for a section with keys of its own.
        description: What it is for; may be empty.
        variants: The variants of the section that have this row (``sgd``, ``students.resnet``); empty: all of them.
    """

    path: str
    type: str
    default: str
    description: str
    variants: tuple[str, ...] = ()


def describe_schema() -> list[SchemaKey]:
    """Every key of a recipe in the schema's order, each section before its keys.

    A key that means the same in all variants of its section (``optim.weight_decay`` ...) is one row; where its type,
    default or meaning differs, there is one for each group of variants that agree.
    """
    return list(_section(root_node(), "", ()))


def _section(node: Node, prefix: str, labels: tuple[str, ...]) -> Iterator[SchemaKey]:
    required = node.get("required", ())
    for key, child in node["properties"].items():
        yield from _key(f"{prefix}{key}", child, key in required, labels)


def _key(path: str, node: Node, required: bool, labels: tuple[str, ...]) -> Iterator[SchemaKey]:
    yield _row(path, node, required, labels)
    for member in members(node):
        if is_tagged(member):
            yield from _tagged(member, f"{path}.")
        elif "properties" in member:
            yield from _section(member, f"{path}.", labels)


def _row(path: str, node: Node, required: bool, labels: tuple[str, ...]) -> SchemaKey:
    full = resolve(node)
    default = full.get("default")
    if required:
        shown = "required"
    elif isinstance(default, dict):
        shown = ""
    else:
        shown = default if isinstance(default, str) else show(default)
    about = full.get("description") or next((m["description"] for m in members(full) if "description" in m), "")
    return SchemaKey(path, words(full), shown, " ".join(about.split()), labels)


def _tagged(node: Node, prefix: str) -> Iterator[SchemaKey]:
    tags = tag_keys(node)
    default = node.get("default") or {}
    yield from (_tag_row(node, key, prefix, default.get(key)) for key in tags)
    every = variants(node)
    for key in dict.fromkeys(key for variant in every for key in variant["properties"] if key not in tags):
        groups: dict[SchemaKey, list[Node]] = {}
        for variant in every:
            if key in variant["properties"]:
                row = _row(prefix + key, variant["properties"][key], key in variant.get("required", ()), ())
                groups.setdefault(row, []).append(variant)
        for group in groups.values():
            labels = dict.fromkeys(label for variant in group for label in variant_labels(node, variant))
            owner = group[0]
            required = key in owner.get("required", ())
            shown = () if len(group) == len(every) else tuple(labels)
            yield from _key(prefix + key, owner["properties"][key], required, shown)


def _tag_row(node: Node, key: str, prefix: str, default: Any) -> SchemaKey:
    choices = dict.fromkeys(value for variant in variants(node) for value in tag_values(variant, key) or ("any text",))
    about = "picks the other keys of this section"
    return SchemaKey(prefix + key, join_words(choices), default or "required", about)
