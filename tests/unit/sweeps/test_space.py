"""What --grid and --search may say."""

from __future__ import annotations

import pytest

from distill.errors import UsageError
from distill.sweeps.space import Axis, Range, combinations, parse_grid, parse_search


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("optim.lr=0.1", ("0.1",)),
        ("optim.name=adam,sgd", ("adam", "sgd")),
        ("model.blocks=[2,2],[3, 3]", ("[2,2]", "[3, 3]")),
        (
            "schedule={kind: cosine, warmup_epochs: 1},{kind: constant}",
            ("{kind: cosine, warmup_epochs: 1}", "{kind: constant}"),
        ),
        ("model.note='a,b',c", ("'a,b'", "c")),
        ("model.note={a: 'x}, y'},z", ("{a: 'x}, y'}", "z")),
        ("train.clip_norm=null,1", ("null", "1")),
        ("optim.lr=0.1,1e-1,0.2", ("0.1", "0.2")),  # equal values are one
        ("a.b=1,true", ("1", "true")),  # though 1 == True in Python
    ],
)
def test_commas_separate_values_outside_brackets(text: str, values: tuple[str, ...]) -> None:
    assert parse_grid([text])[0].values == values


def test_values_that_are_written_again_are_kept_to_tell_of() -> None:
    assert parse_grid(["optim.lr=4,0.1,4.0,1e-1,0.1"]) == (Axis("optim.lr", ("4", "0.1"), ("4.0", "1e-1", "0.1")),)
    assert parse_search(["optim.name=[adam, sgd, adam]"]) == (Axis("optim.name", ("adam", "sgd"), ("adam",)),)


@pytest.mark.parametrize("text", ["optim.lr", "optim.lr=", "optim.lr=1,,2", "x=[1", "name=a,b", "role=teacher,student"])
def test_a_bad_grid_is_one_line_that_names_it(text: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_grid([text])
    assert error.value.message.startswith(f"--grid {text}: ")
    assert "\n" not in error.value.message


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(UsageError) as error:
        parse_grid(["optim.lr", "a=1", "a=2", "name=x"])
    assert [line.split(":")[0] for line in error.value.message.splitlines()] == [
        "--grid optim.lr",
        "--grid a=2",
        "--grid name=x",
    ]


@pytest.mark.parametrize(
    ("text", "variable"),
    [
        ("optim.lr=1e-4:1e-1:log", Range("optim.lr", 1e-4, 1e-1, log=True)),
        ("augment.hflip=0:0.5", Range("augment.hflip", 0, 0.5)),
        ("train.batch_size=32:256", Range("train.batch_size", 32, 256)),
        ("train.batch_size=32:256:log", Range("train.batch_size", 32, 256, log=True)),
        ("optim.name=[adam, sgd]", Axis("optim.name", ("adam", "sgd"))),
        ("model.blocks=[[2,2],[3,3]]", Axis("model.blocks", ("[2,2]", "[3,3]"))),
    ],
)
def test_searches(text: str, variable: object) -> None:
    assert parse_search([text]) == (variable,)


@pytest.mark.parametrize(
    "text", ["a=1", "a=2:1", "a=1:1", "a=0:1:log", "a=x:y", "a=1:2:lin", "a=1:2:log:3", "a=true:2", "a=[]"]
)
def test_a_bad_search_is_one_line_that_names_it(text: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_search([text])
    assert error.value.message.startswith(f"--search {text}: ")


def test_whole_ends_are_known_from_how_they_were_written() -> None:
    whole, real = parse_search(["a=1:5", "b=1.0:5"])
    assert whole.has_whole_ends
    assert not real.has_whole_ends
    assert whole.middle == 3.5


def test_the_last_axis_changes_fastest() -> None:
    found = combinations([Axis("a", ("1", "2")), Axis("b", ("x", "y"))])
    assert [tuple(each.values()) for each in found] == [("1", "x"), ("1", "y"), ("2", "x"), ("2", "y")]
    assert combinations([]) == [{}]


def test_what_tells_no_trials_apart_is_no_axis() -> None:
    """Trials are known wherever the data lies: of two folders the first one's result would stand for both."""
    with pytest.raises(UsageError, match=r"a sweep keeps the recipe's data\.root"):
        parse_grid(["data.root=a,b"])
