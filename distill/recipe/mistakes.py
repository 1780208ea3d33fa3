"""What is wrong with a recipe, in words: pydantic's errors turned into one line for each mistake.

Pydantic says where (with the labels of union members mixed into the path) and that something is wrong; what would be
right is read from the schema, so that every message is built the same way: ``train.epochs: should be a whole number,
got 'yes'``.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from distill.recipe.schema import Recipe
from distill.recipe.shape import (
    CEILING,
    Node,
    allows_tag,
    closest,
    is_tagged,
    join_words,
    members,
    properties,
    resolve,
    root_node,
    tag_keys,
    tag_values,
    variant_labels,
    variants,
    words,
)
from distill.recipe.yaml_tree import KeyPath, join_path, parse_scalar, show
from distill.text import shorten

__all__ = ["MAX_MISTAKES", "Mistake", "check_tree"]

#: What other tools call keys of a recipe.
_CALLED_ELSEWHERE = {
    "bs": "batch_size",
    "learning_rate": "lr",
    "num_epochs": "epochs",
    "temp": "temperature",
    "wd": "weight_decay",
}

#: More than this many are not told: the first ones matter.
MAX_MISTAKES = 50

#: The smallest sound section of each kind whose default would be none, or another statement.
_SOUND: dict[str, Any] = {
    "schema_version": 1,
    "name": "sound",
    "data": {"name": "synthetic"},
    "model": {"source": "students", "name": "tiny"},
    "optim": {"name": "sgd"},
    "train": {"epochs": 1},
    "teacher": {"run": "sound"},
}


@dataclass(frozen=True)
class Mistake:
    """One mistake. ``mentions`` are the keys of the section at ``path`` that the text is about.

    ``guess`` is what the value at ``path`` was probably meant to be, where it decides what its section is.
    """

    path: KeyPath
    text: str
    at_value: bool = False
    mentions: tuple[str, ...] = field(default=(), compare=False)
    guess: str | None = field(default=None, compare=False)


def check_tree(tree: Mapping[str, Any], written: Mapping[KeyPath, str]) -> Recipe | list[Mistake]:
    """Validate a tree of plain values: the recipe, or every mistake in it, once each.

    A mistake can hide others: of a section whose kind is not known no value is checked, and what keys mean together is
    checked once each of them is right. So it is looked at again with kinds as they were probably meant, and once more
    with sound sections in the place of the mistaken ones.

    ``written`` gives numbers as the user wrote them, by path.
    """
    mistakes = _check_once(tree, written)
    if isinstance(mistakes, Recipe):
        return mistakes
    for mended in (_as_meant(tree, mistakes), _without_mistaken_sections(tree, mistakes)):
        again = _check_once(mended, written)
        if not isinstance(again, Recipe):
            mistakes = mistakes + [mistake for mistake in again if _is_fresh(mistake, mistakes)]
    return mistakes


def _as_meant(tree: Mapping[str, Any], mistakes: list[Mistake]) -> dict[str, Any]:
    mended: dict[str, Any] = copy.deepcopy(dict(tree))
    for mistake in mistakes:
        section = _value_at(mended, mistake.path[:-1]) if mistake.guess is not None else None
        if isinstance(section, dict):
            section[mistake.path[-1]] = mistake.guess
    return mended


def _without_mistaken_sections(tree: Mapping[str, Any], mistakes: list[Mistake]) -> dict[str, Any]:
    """Each section that has a mistake as the smallest sound one, or as its default."""
    mistaken = {mistake.path[0] for mistake in mistakes if mistake.path}
    return {key: value for key, value in tree.items() if key not in mistaken} | {
        key: section for key, section in _SOUND.items() if key in mistaken
    }


def _is_fresh(mistake: Mistake, mistakes: list[Mistake]) -> bool:
    """Whether it is new and about what the user wrote: not about what a guess lacks, or what was put in its place."""
    mistaken = {each.path[0] for each in mistakes if each.path}
    if not mistake.at_value and mistaken & {"objective", "role"}:  # what they ask of a teacher is not known
        return False
    if not mistake.path:  # what sections mean together
        return not mistaken.intersection(mistake.mentions) and mistake not in mistakes
    if mistake.path[0] not in mistaken:
        return mistake not in mistakes
    near = any(_reaches(each.path, mistake.path) or _reaches(mistake.path, each.path) for each in mistakes if each.path)
    return mistake.at_value and not near


def _reaches(above: KeyPath, path: KeyPath) -> bool:
    return path[: len(above)] == above


def _check_once(tree: Mapping[str, Any], written: Mapping[KeyPath, str]) -> Recipe | list[Mistake]:
    try:
        return Recipe.model_validate_json(json.dumps(tree), strict=True)
    except ValidationError as error:
        mistakes: dict[tuple[KeyPath, str], Mistake] = {}
        for detail in error.errors(include_url=False)[: 20 * MAX_MISTAKES]:
            for mistake in _translate(detail, tree, written):
                mistakes.setdefault((mistake.path, "" if mistake.at_value else mistake.text), mistake)
        return _without_shadows(list(mistakes.values()), tree)


def _without_shadows(mistakes: list[Mistake], tree: Mapping[str, Any]) -> list[Mistake]:
    """Drop "should be auto or a section" where the user wrote a section and its own mistakes are told."""
    parents = {mistake.path[:length] for mistake in mistakes for length in range(len(mistake.path))}
    return [
        mistake
        for mistake in mistakes
        if not (mistake.at_value and mistake.path in parents and isinstance(_value_at(tree, mistake.path), dict))
    ]


def _translate(detail: Mapping[str, Any], tree: Mapping[str, Any], written: Mapping[KeyPath, str]) -> Iterator[Mistake]:
    path, node, parent = _locate(detail["loc"], tree)
    kind = detail["type"]
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        yield from _tag_mistakes(path, node, detail["input"])
    elif kind == "missing" and isinstance(path[-1], str):
        yield _missing(path, node)
    elif kind == "extra_forbidden":
        yield Mistake(path, _unknown_key(path, parent, _value_at(tree, path[:-1])))
    elif kind in ("value_error", "assertion_error"):
        yield _stated(path, str(detail["msg"]), _value_at(tree, path))
    else:
        if kind == "missing":  # a list that is too short: pydantic names the item that is not there
            path, node = path[:-1], parent
        yield Mistake(path, _wrong_value(path, node, _value_at(tree, path), written.get(path), detail), at_value=True)


def _locate(loc: tuple[str | int, ...], tree: Mapping[str, Any]) -> tuple[KeyPath, Node | None, Node | None]:
    """Pydantic's location without the labels of union members, the schema's node there, and its parent's."""
    path: KeyPath = ()
    node: Node | None = root_node()
    parent: Node | None = None
    items = list(loc)
    while items:
        value = _value_at(tree, path)
        if node is None:
            return path, None, parent
        alternatives = [member for member in members(node) if member.get("type") != "null"]
        if len(alternatives) > 1:
            items.pop(0)  # the member's label
        wanted = "object" if isinstance(value, Mapping) else "array" if isinstance(value, list) else None
        chosen = next((m for m in alternatives if wanted in (m.get("type"), "oneOf" in m and "object")), None)
        if chosen is None and len(alternatives) == 1:
            chosen = alternatives[0]
        if not items or chosen is None:
            return path, node, parent
        if is_tagged(chosen):
            label, tagged = items.pop(0), chosen
            chosen = next((v for v in variants(tagged) if label in variant_labels(tagged, v)), None)
        if items:
            parent, node = chosen, _child(chosen, items[0])
            path = (*path, items.pop(0))
    return path, node, parent


def _child(node: Node | None, item: str | int) -> Node | None:
    if node is None:
        return None
    if isinstance(item, str):
        child = node.get("properties", {}).get(item)
        return resolve(child) if child is not None else None
    prefix = node.get("prefixItems", [])
    child = prefix[item] if item < len(prefix) else node.get("items")
    return resolve(child) if isinstance(child, Mapping) else None


def _value_at(tree: Any, path: KeyPath) -> Any:
    for part in path:
        if isinstance(tree, Mapping):
            tree = tree.get(part)
        else:
            tree = tree[part] if isinstance(tree, list) and isinstance(part, int) and part < len(tree) else None
    return tree


def _missing(path: KeyPath, node: Node | None) -> Mistake:
    kinds = words(node, bounds=False) if node is not None else ""
    listed = f" ({kinds})" if kinds and kinds not in ("text", "a section of keys") else ""
    return Mistake(path[:-1], f"missing key '{join_path(path)}'{listed}", mentions=(str(path[-1]),))


def _stated(path: KeyPath, message: str, section: Any) -> Mistake:
    """A mistake that a validator of the schema words itself; it names the keys it is about."""
    text = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    said = re.findall(r"[A-Za-z_]\w*", text)
    keys = [word for word in said if word in section] if isinstance(section, Mapping) else []
    return Mistake(path, f"{join_path(path)}: {text}" if path else text, mentions=tuple(keys))


def _unknown_key(path: KeyPath, section: Node | None, values: Any) -> str:
    *parents, key = path
    known = list(section.get("properties", {})) if section else []
    text = f"unknown key '{join_path(path)}'"
    owners = _other_owners(tuple(parents), key, values)
    if owners:
        return f"{text} (a key of {owners})"
    meant = _CALLED_ELSEWHERE.get(str(key), key)
    near = closest(meant, known)
    if near:
        return f"{text} (did you mean '{near}'?)"
    elsewhere = [join_path(place) for place in _all_keys() if place[-1] == meant]
    if len(elsewhere) in (1, 2, 3):
        return f"{text} (did you mean {join_words([repr(place) for place in elsewhere])}?)"
    return text


def _other_owners(section_path: KeyPath, key: str | int, values: Any) -> str:
    """The variants of a tagged section that do have the key, and which one the recipe names."""
    node: Node | None = root_node()
    for part in section_path:
        node = _child(node, part)
    if node is None or not is_tagged(node):
        return ""
    owners = [variant for variant in variants(node) if key in variant["properties"]]
    labels = dict.fromkeys(label for variant in owners for label in variant_labels(node, variant))
    tags = ", ".join(f"{tag} is {values.get(tag)}" for tag in tag_keys(node)) if isinstance(values, Mapping) else ""
    return f"{', '.join(labels)}; {tags}" if labels else ""


def _all_keys() -> Iterator[KeyPath]:
    for section, node in root_node()["properties"].items():
        yield (section,)
        for key in properties(node):
            yield (section, key)


def _tag_mistakes(path: KeyPath, node: Node | None, section: Any) -> Iterator[Mistake]:
    """The section's class is not known: say which tag is wrong, and which keys no class has."""
    node = next((member for member in members(node) if is_tagged(member)), None) if node is not None else None
    if node is None:
        return
    if not isinstance(section, Mapping):
        yield Mistake(path, f"{join_path(path)}: should be a section of keys, got {show(section)}", at_value=True)
        return
    candidates = variants(node)
    settled: list[str] = []
    for key in tag_keys(node):
        mistake = _tag_mistake((*path, key), section, candidates, settled)
        if mistake:
            yield mistake
        else:
            settled.append(f"{key}: {section[key]}")
            candidates = [variant for variant in candidates if allows_tag(variant, key, section[key])]
    known = properties(node)
    for key in section:
        if key not in known:
            yield Mistake((*path, key), _unknown_key((*path, key), {"properties": known}, section))


def _tag_mistake(
    path: KeyPath, section: Mapping[str, Any], candidates: list[Node], settled: list[str]
) -> Mistake | None:
    """What is wrong with one tag, given the variants that the tags before it leave."""
    key = str(path[-1])
    values = [tag_values(variant, key) for variant in candidates]
    # a variant that takes any text makes any text right, as a model's name is while its source is itself wrong
    known = [] if None in values else list(dict.fromkeys(value for allowed in values for value in allowed or ()))
    wanted = join_words(known) + (f" for {settled[-1]}" if settled else "") if known else "text"
    if key not in section:
        return Mistake(path[:-1], f"missing key '{join_path(path)}' ({wanted})", mentions=(key,))
    got = section[key]
    if isinstance(got, str) and (got in known or not known):
        return None
    near = closest(got, known)
    meant = f" (did you mean '{near}'?)" if near else ""
    guess = near or next(iter(known), None)
    return Mistake(path, f"{join_path(path)}: should be {wanted}, got {show(got)}{meant}", at_value=True, guess=guess)


def _wrong_value(path: KeyPath, node: Node | None, value: Any, written: str | None, detail: Mapping[str, Any]) -> str:
    got = shorten(written) if written is not None else show(value)
    if node is None:
        wanted = re.sub("^Input should ", "should ", str(detail["msg"]))
        return f"{join_path(path)}: {wanted}, got {got}"
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    wanted = words(node, bounds=is_number, ceilings=is_number and abs(value) >= CEILING)
    return f"{join_path(path)}: should be {wanted}, got {got}{_advice(node, value)}"


def _advice(node: Node, value: Any) -> str:
    if not isinstance(value, str):
        return ""
    literals = [literal for member in members(node) for literal in member.get("enum", [member.get("const")]) if literal]
    near = closest(value, [literal for literal in literals if isinstance(literal, str)])
    if near:
        return f" (did you mean '{near}'?)"
    kinds = {member.get("type") for member in members(node)}
    if "boolean" in kinds and value.casefold() in ("yes", "no", "on", "off", "y", "n"):
        return f" (write {'true' if value.casefold() in ('yes', 'on', 'y') else 'false'})"
    return " (leave out the quotes)" if _reads_as(value) in kinds else ""


def _reads_as(text: str) -> str | None:
    """The schema's name for what ``text`` would be without its quotes."""
    try:
        value = parse_scalar(text)
    except ValueError:
        return None
    return {bool: "boolean", int: "integer", float: "number"}.get(type(value))
