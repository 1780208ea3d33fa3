"""The recipe's shape, read from its JSON schema: which keys a section has, which variants, which values.

Messages, overrides and ``distill recipe schema`` all ask here, so that a new model or optimiser is known to them
as soon as the schema has it.
"""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import Iterable, Mapping
from typing import Any

from distill.recipe.feature_terms import STAGE_PATTERN
from distill.recipe.schema import Recipe
from distill.recipe.yaml_tree import show
from distill.references import LONGEST_NAME, NAME

__all__ = [
    "CEILING",
    "SCHEMA_FILE",
    "Node",
    "allows_tag",
    "closest",
    "is_tagged",
    "join_words",
    "members",
    "pick_variant",
    "properties",
    "recipe_schema",
    "resolve",
    "root_node",
    "schema_text",
    "tag_keys",
    "tag_values",
    "variant_labels",
    "variants",
    "words",
]

Node = Mapping[str, Any]

#: Beside the bundled recipes, whose first lines name it.
SCHEMA_FILE = "recipe.schema.json"

#: The keys that pick a model's class. Pydantic writes no discriminator into a JSON schema for a callable one.
MODEL_TAGS = ("source", "name")

#: A maximum from here on is no limit that anyone meets.
CEILING = 1e9

_PATTERN_WORDS = {
    f"^{NAME.pattern}$": f"1 to {LONGEST_NAME} letters, digits, '_', '-' and '.', a letter or digit first",
    STAGE_PATTERN: "stem, stage1, stage2 and so on (or stage1.preact), or pooled",
}


def recipe_schema() -> dict[str, Any]:
    """The JSON schema of a recipe, for editors and other tools."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}


def schema_text() -> str:
    """The same as the text of :data:`SCHEMA_FILE`, which the first lines of every bundled recipe name for editors."""
    return json.dumps(recipe_schema(), indent=2, allow_nan=False) + "\n"


@functools.cache
def root_node() -> Node:
    """The schema's node for a whole recipe."""
    return recipe_schema()


def resolve(node: Node) -> Node:
    """``node`` with its ``$ref`` followed; what stands beside the reference (description, default) is kept."""
    if "$ref" not in node:
        return node
    target = root_node()["$defs"][node["$ref"].rsplit("/", 1)[1]]
    return {**target, **{key: value for key, value in node.items() if key != "$ref"}}


def members(node: Node) -> list[Node]:
    """The alternatives of an untagged union, ``null`` among them; any other node alone."""
    node = resolve(node)
    return [resolve(member) for member in node["anyOf"]] if "anyOf" in node else [node]


def is_tagged(node: Node) -> bool:
    """Whether one of the section's keys picks its class."""
    return "oneOf" in resolve(node)


def variants(node: Node) -> list[Node]:
    """The classes a tagged section may have."""
    return [resolve(variant) for variant in resolve(node)["oneOf"]]


def tag_keys(node: Node) -> tuple[str, ...]:
    """The keys that pick the class of a tagged section."""
    discriminator = resolve(node).get("discriminator")
    return (discriminator["propertyName"],) if discriminator else MODEL_TAGS


def tag_values(variant: Node, key: str) -> tuple[str, ...] | None:
    """What a variant allows for a tag; ``None`` where it allows any text."""
    node = variant["properties"][key]
    return (node["const"],) if "const" in node else tuple(node["enum"]) if "enum" in node else None


def pick_variant(node: Node, section: Any) -> Node | None:
    """The variant that the tags in ``section`` name, if they name one."""
    if not isinstance(section, Mapping):
        return None
    for variant in variants(node):
        if all(allows_tag(variant, key, section.get(key)) for key in tag_keys(node)):
            return variant
    return None


def allows_tag(variant: Node, key: str, value: Any) -> bool:
    """Whether ``value`` may stand for the tag ``key`` in a variant."""
    values = tag_values(variant, key)
    return isinstance(value, str) and (values is None or value in values)


def variant_labels(node: Node, variant: Node) -> tuple[str, ...]:
    """The names under which users know a variant: ``adam``; for models ``students.resnet``, ``timm``."""
    labels: tuple[str, ...] = ("",)
    for key in tag_keys(node):
        values = tag_values(variant, key)
        labels = tuple(f"{label}.{value}".lstrip(".") for label in labels for value in values) if values else labels
    return labels


def properties(node: Node) -> dict[str, Node]:
    """The keys of a section, as far as they are known without its tags: all that some variant has."""
    if is_tagged(node):
        return {key: value for variant in variants(node) for key, value in variant["properties"].items()}
    nodes: dict[str, Node] = {}
    for member in members(node):
        if is_tagged(member):
            nodes.update(properties(member))
        else:
            nodes.update(member.get("properties", {}))
    return nodes


def words(node: Node, *, bounds: bool = True, ceilings: bool = False) -> str:
    """What a key takes, in words: ``a whole number from 1 to 64``, ``auto, true or false``.

    Args:
        node: The key's node of the schema.
        bounds: Tell what numbers are allowed.
        ceilings: Among them the bounds that only keep out the absurd.
    """
    choices: list[str] = []
    for member in members(node):
        choices += _choices(member, bounds, ceilings)
    return join_words(dict.fromkeys(choices))


def join_words(choices: Iterable[str]) -> str:
    """``a, b or c``."""
    *most, last = choices
    return f"{', '.join(most)} or {last}" if most else last


def _choices(node: Node, bounds: bool, ceilings: bool) -> list[str]:
    if "const" in node or "enum" in node:
        return [_literal(value) for value in node.get("enum", [node.get("const")])]
    kind = "object" if "oneOf" in node else node.get("type")
    if kind == "boolean":
        return ["true", "false"]
    if kind in ("integer", "number"):
        return [("a whole number" if kind == "integer" else "a number") + (_bounds(node, ceilings) if bounds else "")]
    if kind == "array":
        return [_array(node)]
    text = _PATTERN_WORDS.get(node["pattern"], f"text like {node['pattern']}") if "pattern" in node else "text"
    return [{"string": text, "null": "null", "object": "a section of keys"}.get(str(kind), "a value")]


def _literal(value: Any) -> str:
    return value if isinstance(value, str) else "null" if value is None else show(value)


def _array(node: Node) -> str:
    items = node.get("prefixItems")
    item = words(items[0] if items else node.get("items", {}), bounds=False)
    item = {"a whole number": "whole numbers", "a number": "numbers", "a section of keys": "sections"}.get(item, item)
    count = f"{len(items)} " if items else ""
    return f"a list of {count}{item}" + (", not empty" if node.get("minItems") and not items else "")


def _bounds(node: Node, ceilings: bool) -> str:
    low, high = node.get("minimum"), node.get("maximum")
    above, below = node.get("exclusiveMinimum"), node.get("exclusiveMaximum")
    if node["type"] == "integer" and below is not None:
        high, below = below - 1, None
    if high is not None and high >= CEILING and not ceilings:
        high = None
    end = f"to {high:,.12g}" if high is not None else f"below {below:,.12g}" if below is not None else ""
    if low is not None:
        return f" from {low:,g} {end.replace('below', 'to below')}" if end else f" of at least {low:,g}"
    if above is not None:
        return f" above {above:,g}" + (f", up {end}".replace("up below", "below") if end else "")
    return f" {end.replace('to', 'up to')}" if end else ""


def closest(word: Any, known: Iterable[str]) -> str | None:
    """The known word that ``word`` was probably meant to be."""
    if not isinstance(word, str) or len(word) > 100:
        return None
    by_folded = {name.casefold().replace("-", "_"): name for name in known}
    matches = difflib.get_close_matches(word.casefold().replace("-", "_"), by_folded, n=1, cutoff=0.6)
    return by_folded[matches[0]] if matches else None
