"""Whatever a recipe's text is, it loads or it is a RecipeError: one printable line for each mistake."""

from __future__ import annotations

import json
import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill.errors import RecipeError
from distill.recipe import Recipe, parse_recipe

BASE = """\
name: x
role: student
data: {name: cifar10, val_fraction: 0.1}
model: {source: students, name: resnet, blocks: [1, 1], channels: [8, 16], strides: [1, 2], normalize: auto}
teacher: {banks: [{path: a}, {path: b, weight: 2}]}
objective: {kind: kd}
optim: {name: sgd, lr: 0.1}
schedule: {kind: cosine}
augment: {erase: {size: 4}, views: 3}
train:
  epochs: 2
  early_stopping: {patience: 3}
"""

TOKENS = re.findall(r"\w+|\s+|[^\w\s]", BASE)

SYNTAX = [
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "#",
    "%",
    "|",
    ">",
    "'",
    '"',
    "@",
    "`",
    "\\",
    "~",
    "<<",
    "...",
    "null",
    "true",
    "no",
    "0",
    "-1",
    "1e999",
    ".nan",
    "1.5",
    "2020-01-01",
    "[1,2]",
    "{a:1}",
]
WORDS = ["sgd", "adam", "timm", "tiny", "kind", "all", "name", "multistep", "9" * 40, "\\ud800", '"\\ud800"', "é"]
SPACES = [
    "\n",
    "\n  ",
    " ",
    "\t",
    "\r",
    "\x85",
    "\u2028",
    "\ufeff",
    "\x00",
    "- ",
    "? ",
    "&a ",
    "*a",
    "!t ",
    "!!str ",
    "---\n",
]
pieces = st.sampled_from(SYNTAX + WORDS + SPACES)
values = st.one_of(pieces, st.text(max_size=8), st.integers().map(str), st.floats().map(repr))
edits = st.lists(st.tuples(st.integers(0, len(TOKENS) - 1), st.sampled_from(["cut", "put", "set"]), values), max_size=6)


def check(text: str, overrides: tuple[str, ...] = ()) -> None:
    try:
        recipe = parse_recipe(text, source="fuzz.yaml", overrides=overrides)
    except RecipeError as error:
        for line in error.message.split("\n"):
            assert re.match(r"fuzz\.yaml:\d+: .|--set .|fuzz\.yaml: and more", line), line
            assert line.isprintable(), line
            assert len(line) < 600, line
    else:
        assert isinstance(recipe, Recipe)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(edits)
def test_mutated_recipes(changes: list[tuple[int, str, str]]) -> None:
    tokens = list(TOKENS)
    for position, how, value in changes:
        tokens[position] = {"cut": "", "put": tokens[position] + value, "set": value}[how]
    check("".join(tokens))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60) | st.lists(pieces, max_size=20).map("".join))
def test_any_text(text: str) -> None:
    check(text)


keys = st.sampled_from(
    ["optim", "name", "lr", "model", "blocks", "train", "normalize", "kind", "teacher", "banks", "", "0", "x y"]
)
paths = st.lists(keys | st.text(max_size=4), max_size=4).map(".".join)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(paths, st.sampled_from(["=", ""]), values).map("".join), max_size=3))
def test_any_overrides(overrides: list[str]) -> None:
    check(BASE, tuple(overrides))


trees = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-10, 10)
    | st.sampled_from(["auto", "sgd", "timm", "kd", "tiny", "students"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "kind", "source", "lr", "erase", "mean", "path", "sgd", "kd", "timm"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from([*Recipe.model_fields, "adam"]), trees, min_size=1))
def test_any_values_anywhere(tree: dict) -> None:
    base = "\n".join(f"{key}: {json.dumps(value)}" for key, value in tree.items())
    rest = "\n".join(line for line in BASE.splitlines()[:9] if line.split(":")[0] not in tree)
    check(f"{base}\n{rest}")
