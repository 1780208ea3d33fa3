"""``--set a.b=value``: changes to a recipe's tree before it is validated.

The value is YAML on one line, read as a recipe's own values are: ``--set optim.lr=1e-3``,
``--set model.blocks=[2, 2, 2, 2]``, ``--set "schedule={kind: cosine}"``, ``--set train.clip_norm=null``.
Later overrides win over earlier ones.

Choosing another variant drops what only the old one knew. ``--set optim.name=adam`` on a recipe with ``momentum`` would
otherwise be an error, and no sweep over optimisers possible. Keys that an override set are kept, and so are keys that
neither variant knows: those are mistakes, and are reported. ``--set objective.kind=supervised`` drops ``teacher:``,
which that objective does not ask. Keys that both variants know keep the recipe's values, ``lr`` among them; but another
``objective.kind`` brings its own weights and temperatures: of two losses they are not the same thing.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from distill.errors import RecipeError
from distill.recipe.schema import KINDS_WITHOUT_TEACHER
from distill.recipe.shape import is_tagged, pick_variant, resolve, root_node, tag_keys
from distill.recipe.yaml_tree import KeyPath, join_path, read_yaml, show
from distill.text import plain, shorten

__all__ = [
    "Override",
    "OverrideError",
    "apply_overrides",
    "merge_overrides",
    "override_at",
    "override_below",
    "parse_override",
]

MAX_PARTS = 8
_HINT = 'write --set section.key=value, for example --set optim.lr=0.05 or --set "schedule={kind: cosine}"'


@dataclass(frozen=True)
class Override:
    """One ``--set``: the key's path, the value, and the text as it was given."""

    path: tuple[str, ...]
    value: Any
    text: str

    @property
    def label(self) -> str:
        """How messages name it."""
        return _label(self.text)


class OverrideError(ValueError):
    """An override that cannot be read or applied; the message names it, ``text`` is the override as it was given."""

    def __init__(self, text: str, what: str) -> None:
        super().__init__(f"{_label(text)}: {what}")
        self.text = text


def apply_overrides(tree: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of ``tree`` with the overrides applied, not yet validated.

    Raises:
        RecipeError: One line for each override that cannot be read or applied.
    """
    parsed, problems = [], []
    for text in overrides:
        try:
            parsed.append(parse_override(text))
        except OverrideError as error:
            problems.append(error)
    merged, more = merge_overrides(tree, parsed)
    if problems or more:
        raise RecipeError("\n".join(map(str, problems + more)), hint=_HINT)
    return merged


def parse_override(text: str) -> Override:
    """Read one ``a.b=value``.

    Raises:
        OverrideError: No ``=``, an empty key or value, a key into a list, or a value that is not YAML on one line.
    """
    key, equals, value_text = text.partition("=")
    path = tuple(part.strip() for part in key.split("."))
    if not equals:
        raise OverrideError(text, "no '='; write --set section.key=value")
    if not all(path):
        raise OverrideError(text, "an empty key; write --set section.key=value")
    if len(path) > MAX_PARTS:
        raise OverrideError(text, "no recipe nests so deep")
    if any(part.isdigit() or part.endswith("]") for part in path):
        raise OverrideError(text, "a list is set whole, as in --set model.blocks=[3, 3, 2, 3]")
    return Override(path, _parse_value(value_text, text), text)


def _parse_value(text: str, override: str) -> Any:
    if not text.strip():
        raise OverrideError(override, "no value; write null to unset a key")
    if "\n" in text or "\r" in text:
        raise OverrideError(override, "the value should be on one line")
    tree = read_yaml(text)
    if tree.problems:
        raise OverrideError(override, tree.problems[0].text)
    if tree.empty:
        raise OverrideError(override, "no value; write null to unset a key")
    if tree.block:
        raise OverrideError(override, "write a section as {key: value}, a list as [1, 2], and quote text with ': '")
    return tree.value


def merge_overrides(tree: dict[str, Any], overrides: Sequence[Override]) -> tuple[dict[str, Any], list[OverrideError]]:
    """A copy of ``tree`` with the overrides applied, and an error for each that does not fit the tree."""
    merged = copy.deepcopy(tree)
    problems = []
    for override in overrides:
        try:
            _set(merged, override)
        except OverrideError as error:
            problems.append(error)
    _follow_new_variants(tree, merged, overrides)
    return merged, problems


def _set(tree: dict[str, Any], override: Override) -> None:
    section = tree
    for depth, part in enumerate(override.path[:-1], start=1):
        inner = section.get(part)
        if inner is None:
            inner = section[part] = {}
        if isinstance(inner, list):
            raise OverrideError(override.text, f"'{join_path(override.path[:depth])}' is a list; set it whole")
        if not isinstance(inner, dict):
            where = join_path(override.path[:depth])
            raise OverrideError(override.text, f"'{where}' is no section of keys; it is {show(inner)}")
        section = inner
    section[override.path[-1]] = copy.deepcopy(override.value)  # a later override changes it, not what was asked


def _follow_new_variants(before: dict[str, Any], after: dict[str, Any], overrides: Sequence[Override]) -> None:
    for name, property_node in root_node()["properties"].items():
        node, section = resolve(property_node), after.get(name)
        if not is_tagged(node) or not isinstance(section, dict):
            continue
        chosen = {override.path[1] for override in overrides if override.path[:1] == (name,) and len(override.path) > 1}
        if chosen and before.get(name) is None:
            _fill_default_tags(section, node)
        written, replaced = _written_whole(name, overrides, tag_keys(node))
        for old in (before.get(name), *replaced):
            _drop_old_keys(old, section, node, chosen | written)
    objective = after.get("objective")
    paths = {override.path for override in overrides}
    kind_is_set = ("objective",) in paths or ("objective", "kind") in paths
    asks_none = isinstance(objective, dict) and objective.get("kind") in KINDS_WITHOUT_TEACHER
    if kind_is_set and asks_none and not any(path[0] == "teacher" for path in paths):
        after.pop("teacher", None)


def _fill_default_tags(section: dict[str, Any], node: Any) -> None:
    """``--set optim.lr=0.05`` where the recipe has no ``optim:`` changes the default optimiser."""
    default = node.get("default") or {}
    for key in tag_keys(node):
        if key in default:
            section.setdefault(key, default[key])


def _written_whole(
    name: str, overrides: Sequence[Override], tags: Collection[str]
) -> tuple[set[str], list[dict[str, Any]]]:
    """Keys of the section's last ``name={...}``, unless another variant was chosen after it; and all such values."""
    written: set[str] = set()
    values = []
    for override in overrides:
        if override.path == (name,):
            written = set()
            if isinstance(override.value, dict):
                values.append(override.value)
                written = set(override.value)
        elif override.path[:1] == (name,) and values and override.path[1] in tags:
            written = written if values[-1].get(override.path[1]) == override.value else set()
    return written, values


def _drop_old_keys(before: Any, section: dict[str, Any], node: Any, chosen: set[str]) -> None:
    """Drop what only the old variant knew, and weights and temperatures, which are each loss's own."""
    old, new = pick_variant(node, before), pick_variant(node, section)
    if old is None or new is None or old == new:
        return
    for key in list(section):
        is_own = key not in new["properties"] or key.endswith("_weight") or "temperature" in key
        if key in old["properties"] and is_own and key not in chosen:
            del section[key]


def _label(text: str) -> str:
    return f"--set {shorten(plain(text), 80)}"


def override_at(overrides: Sequence[Override], path: KeyPath) -> Override | None:
    """The last override that set ``path``, or a section around it."""
    return next((o for o in reversed(overrides) if o.path == path[: len(o.path)]), None)


def override_below(overrides: Sequence[Override], path: KeyPath, mentions: Sequence[str]) -> Override | None:
    """The last override of a key below ``path``, one of a mentioned key before others."""
    below = [o for o in overrides if o.path[: len(path)] == path]
    named = [o for o in below if o.path[len(path) : len(path) + 1] and o.path[len(path)] in mentions]
    fitting = named or below
    return fitting[-1] if fitting else None
