"""Dumped recipes load back to the same recipe, here and in other YAML readers."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill.recipe import Recipe, dump_recipe, parse_recipe
from distill.recipe.dump import WIDTH

share = st.floats(0, 1)
positive = st.floats(1e-300, 1e9)
count = st.integers(1, 1_000_000)
text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=0, max_size=40)
tricky = st.sampled_from(
    ["no", "null", "1e3", "~", "- a", "a: b", "#", "{", "2020-01-01", "\u2028", "\ufeff", " x ", "é", "\ud7ff", "😀"]
)
words = text | tricky
name = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True)


def section(required: dict[str, st.SearchStrategy], **optional: st.SearchStrategy) -> st.SearchStrategy[dict]:
    return st.fixed_dictionaries(required, optional=optional)


lists = st.lists(count, min_size=1, max_size=60)
optims = st.one_of(
    section({"name": st.just("sgd")}, lr=positive, momentum=share, nesterov=st.booleans()),
    section({"name": st.sampled_from(["adam", "adamw"])}, betas=st.lists(st.floats(0, 0.999), min_size=2, max_size=2)),
    section(
        {"name": st.just("rmsprop")}, eps=positive, lookahead=st.none() | section({}, k=count, alpha=share.filter(bool))
    ),
)
schedules = st.one_of(
    section({"kind": st.just("cosine")}, warmup_epochs=st.floats(0, 1e9), min_lr=st.floats(0, 1e9)),
    section({"kind": st.just("multistep"), "milestones": lists}, gamma=positive),
    section({"kind": st.just("one_cycle")}, cycle_momentum=st.booleans()),
)
rgb = st.lists(st.floats(0.01, 1), min_size=3, max_size=3)
models = st.one_of(
    section({"source": st.just("students"), "name": st.just("tiny")}, width=st.integers(1, 64), norm=st.booleans()),
    section(
        {"source": st.just("timm"), "name": st.just("resnet18")},
        max_params=st.none() | count,
        normalize=st.just("auto") | section({"mean": rgb, "std": rgb}),
    ),
)
augments = section(
    {},
    hflip=share,
    views=st.none() | count,
    erase=section({}, size=st.integers(0, 1024), probability=share),
    resized_crop=st.none() | section({}, ratio=st.tuples(positive, positive).map(sorted)),
)
trains = section(
    {},
    channels_last=st.booleans() | st.just("auto"),
    clip_norm=st.none() | positive,
    early_stopping=st.none() | section({"patience": count}),
)
taught = section(
    {
        "role": st.just("student"),
        "objective": section({"kind": st.just("kd")}, temperature=positive),
        "teacher": st.one_of(
            section({"run": words}), section({"banks": st.lists(section({"path": words}, weight=positive), min_size=1)})
        ),
    }
)
alone = section({"role": st.sampled_from(["teacher", "student", "baseline"])})


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    tree = draw(
        section(
            {
                "name": name,
                "data": section({"name": st.just("folder")}, root=words, limit=st.none() | count),
                "model": models,
            },
            optim=optims,
            schedule=schedules,
            augment=augments,
            train=trains,
        )
    )
    if "min_lr" in tree.get("schedule", {}):  # no more than the least of the rates that optimisers begin with
        tree["schedule"]["min_lr"] = min(tree["schedule"]["min_lr"], tree.get("optim", {}).get("lr", 1e-3))
    return Recipe.model_validate(tree | draw(taught | alone), strict=False)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(recipes())
def test_loads_back_equal(recipe: Recipe) -> None:
    dumped = dump_recipe(recipe)
    assert parse_recipe(dumped, source="dumped.yaml") == recipe
    assert dump_recipe(parse_recipe(dumped, source="dumped.yaml")) == dumped


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(recipes())
def test_yaml_1_1_readers_agree(recipe: Recipe) -> None:
    yaml = pytest.importorskip("yaml")
    assert yaml.safe_load(dump_recipe(recipe)) == recipe.model_dump(mode="json", exclude={"search"})


def test_what_a_search_may_vary_is_written_where_it_is_said(student: str) -> None:
    """And only there: a run keeps none, and its text, of which keys are made, says nothing of it."""
    said = parse_recipe(student, source="x", overrides=["search.depth=[[1, 4], [2, 3]]", "search.width.max=64"])
    line = "search: {depth: [[1, 4], [2, 3]], width: {min: 8, max: 64, multiple: 8}}"
    assert dump_recipe(said).splitlines()[-1] == line
    assert parse_recipe(dump_recipe(said), source="again") == said
    assert dump_recipe(said.model_copy(update={"search": None})) == dump_recipe(parse_recipe(student, source="x"))


def test_the_layout(student: str) -> None:
    dumped = dump_recipe(parse_recipe(student, source="x"))
    lines = dumped.splitlines()
    tops = [line.split(":")[0] for line in lines if not line.startswith(" ")]
    assert [*tops, "search"] == list(Recipe.model_fields)
    objective = lines.index("objective:")
    assert lines[objective + 1 : objective + 4] == ["  kind: kd", "  ce_weight: 0.1", "  kd_weight: 0.9"]
    assert "  erase: {size: 0, probability: 1.0}" in lines
    assert lines[lines.index("optim:") + 1] == "  name: sgd"
    assert lines[lines.index("model:") + 1 : lines.index("model:") + 3] == ["  source: students", "  name: resnet"]
    assert "  clip_norm: null" in lines
    assert all(len(line) <= WIDTH for line in lines)
    assert dumped.endswith("\n")


def test_every_default_is_spelled_out(student: str) -> None:
    recipe = parse_recipe(student, source="x")
    dumped = dump_recipe(recipe)
    for section_name, values in recipe.model_dump(mode="json", exclude={"search"}).items():
        for key in values if isinstance(values, dict) else [section_name]:
            assert f"{key}: " in dumped or f"{key}:\n" in dumped


def test_long_lists_are_wrapped(student: str) -> None:
    recipe = parse_recipe(
        student, source="x", overrides=[f"schedule={{kind: multistep, milestones: {list(range(1, 200))}}}"]
    )
    dumped = dump_recipe(recipe)
    assert all(len(line) <= WIDTH for line in dumped.splitlines())
    assert parse_recipe(dumped, source="x") == recipe


def test_small_numbers_are_numbers_to_every_reader(student: str) -> None:
    dumped = dump_recipe(parse_recipe(student, source="x", overrides=["optim.lr=1e-5", "optim.weight_decay=1.5e-7"]))
    assert "  lr: 1.0e-05\n" in dumped
    assert "  weight_decay: 1.5e-07\n" in dumped
