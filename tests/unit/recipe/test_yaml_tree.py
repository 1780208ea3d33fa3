"""Reading YAML 1.2: what scalars mean, on which lines they stand, and what is refused."""

from __future__ import annotations

import math

import pytest

from distill.recipe.yaml_tree import read_yaml


def value_of(text: str) -> object:
    tree = read_yaml(f"a: {text}")
    assert not tree.problems, tree.problems
    return tree.value["a"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-3", 0.001),
        ("5e-4", 0.0005),
        ("1E5", 100000.0),
        ("5_000_000", 5_000_000),
        ("1_000.5", 1000.5),
        ("-7", -7),
        ("+7", 7),
        (".5", 0.5),
        ("5.", 5.0),
        ("017", 17),
        ("0o17", 15),
        ("0x1F", 31),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
    ],
)
def test_scalars_with_a_meaning(text: str, expected: object) -> None:
    value = value_of(text)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    "text",
    [
        "no",
        "yes",
        "on",
        "off",
        "y",
        "2020-01-01",
        "1:30",
        "0b11",
        "1__0",
        "_1",
        "1_",
        "0x",
        "1e",
        "e3",
        "nan",
        "=",
        "\u0661",
    ],
)
def test_scalars_that_are_text(text: str) -> None:
    assert value_of(text) == text


def test_quoted_numbers_are_text() -> None:
    assert value_of('"1e-3"') == "1e-3"
    assert value_of("'5'") == "5"


def test_windows_line_ends_and_a_byte_order_mark() -> None:
    tree = read_yaml("\ufeffa: 1\r\nb:\r\n  c: 2\r\n")
    assert tree.value == {"a": 1, "b": {"c": 2}}
    assert tree.lines[("b", "c")] == (3, 3)


def test_lines_of_keys_and_values() -> None:
    tree = read_yaml("# first\na: 1\nb:\n\n  c:\n    - 1\n    - {d: 2,\n       e: 3}\nf:\n  4\ng:\nh: 1")
    assert tree.lines[("a",)] == (2, 2)
    assert tree.lines[("b",)] == (3, 5)
    assert tree.lines[("b", "c")] == (5, 6)
    assert tree.lines[("b", "c", 1, "d")] == (7, 7)
    assert tree.lines[("b", "c", 1, "e")] == (8, 8)
    assert tree.lines[("f",)] == (9, 10)
    assert tree.lines[("g",)] == (11, 11)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: 2\na: 3", 3, "key 'a' is given twice (first at line 1)"),
        ("x: {b: 1, c: 2,\n b: 3}", 2, "key 'x.b' is given twice (first at line 1)"),
        ("a: &x 1", 1, "anchors (&x)"),
        ("a: 1\nb: *a", 2, "aliases (*a)"),
        ("a:\n  <<: {b: 1}", 2, "merge keys"),
        ("a: !!python/object/apply:os.system [ls]", 1, "tags (!!python/object/apply:os.system)"),
        ("a: !secret x", 1, "tags (!secret)"),
        ("a: !!int 3", 1, "tags (!!int)"),
        ("a: 1\n---\nb: 2", 2, "a second document"),
        ("a: .nan", 1, "a: should be a finite number, got .nan"),
        ("a: -.inf", 1, "a: should be a finite number, got -.inf"),
        ("a: 1e999", 1, "a: 1e999 is too large"),
        ("a: " + "9" * 5000, 1, "is too large"),
        ("a: 9223372036854775808", 1, "a: 9223372036854775808 is too large"),
        ("a: 1\nb: \x07", 2, "control character U+0007"),
        ("a: 1\n\x00", 2, "control character U+0000"),
        ('a: "\\0"', 1, "control characters"),
        ('a: "\\ud800"', 1, "control characters"),
        ('a: "\\U00110000"', 1, "not valid YAML"),
        ("1: a", 1, "a key should be text, got 1"),
        ("a: 1\ntrue: a", 2, "a key should be text, got true"),
        ("null: a", 1, "a key should be text, got null"),
        ("? [a]\n: 1", 1, "a key should be text, not a list or a mapping"),
        ("a: [1,\nb: 2", 2, "not valid YAML"),
        ("a:\n\tb: 1", 2, "a tab; indent with spaces"),
        ("a: b: c", 1, "not valid YAML: a ':' that cannot stand here"),
        ("a: @b", 1, "not valid YAML"),
        ("a: 'b", 1, "not valid YAML"),
        ("%YAML 1.1\n---\na: no", 2, "%YAML 1.1"),
    ],
)
def test_refused(text: str, line: int, words: str) -> None:
    problems = read_yaml(text).problems
    assert len(problems) == 1, problems
    assert problems[0].line == line
    assert words in problems[0].text
    assert len(problems[0].text) < 200
    assert "\n" not in problems[0].text


def test_the_first_of_two_equal_keys_is_kept() -> None:
    assert read_yaml("a: 1\na: {b: 2}").value == {"a": 1}


MANY = 300_000


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * MANY,
        "a: " + "{" * MANY,
        "- " * MANY,
        "? " * MANY,
        "{a: " * MANY,
        "[" + "a," * MANY,
        "a: !x " + "[" * MANY,
        "? " + "[" * MANY,
        "\n".join(f"k{i}: {i}" for i in range(30_000)),
        "&a " * MANY,
        "!a " * MANY,
        "---\n" * MANY,
    ],
    ids=range(12),
)
def test_absurd_documents_are_given_up_on(text: str) -> None:
    tree = read_yaml(text)
    assert tree.fatal
    assert tree.value is None
    assert all(len(problem.text) < 200 for problem in tree.problems)


def test_a_laughing_document_is_refused_unexpanded() -> None:
    text = "a: &a [x, x]\n" + "\n".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]" for i in range(20)
    )
    tree = read_yaml(text)
    assert len(tree.problems) == 21
    assert len(str(tree.value)) < 1000


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "---\n...\n", "\ufeff"])
def test_empty(text: str) -> None:
    tree = read_yaml(text)
    assert tree.empty
    assert not tree.fatal


def test_numbers_agree_with_python() -> None:
    for number in (1e-300, 5e-324, 1.7976931348623157e308, 0.1, 1 / 3, math.pi, -0.0):
        assert math.copysign(1, value_of(repr(number))) == math.copysign(1, number)
        assert value_of(repr(number)) == number
