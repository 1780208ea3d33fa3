"""The list of objectives: all there are, and what they say of themselves is what they do."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from distill.cli import app
from distill.errors import RecipeError, UsageError
from distill.objectives import OBJECTIVES, TermContext, build_objective
from distill.recipe import describe_objective, list_objectives, load_recipe, parse_recipe

MAPS = ("stem", "stage1", "stage1.preact", "stage2", "stage2.preact")
SHAPES = dict.fromkeys(MAPS, (4, 8, 8)) | {"pooled": (4,)}
CONTEXT = TermContext(student=SHAPES, teacher=SHAPES, labels=None, classes=10)
KINDS = {each.kind: each for each in list_objectives()}
BUILT_IN = [kind for kind in OBJECTIVES if not kind.startswith("python") and kind != "crd"]  # which wants labels


def test_every_objective_is_listed():
    assert KINDS.keys() == OBJECTIVES.keys() | {"supervised"}
    assert all(each.minimises and each.asks for each in KINDS.values())
    assert [kind for kind, each in KINDS.items() if not each.source] == ["supervised", "python", "python_labels"]


@pytest.mark.parametrize("kind", BUILT_IN)
def test_what_it_asks_is_what_it_requires(kind):
    recipe = parse_recipe(
        f"name: one\nrole: student\nteacher: {{run: some}}\nobjective: {{kind: {kind}}}\n"
        "data: {name: cifar10}\nmodel: {source: students, name: lenet, input_size: 32}\n"
        "optim: {name: sgd, lr: 0.1}\ntrain: {epochs: 100, batch_size: 16}\n",
        source="test",
    )
    required = build_objective(recipe.objective, CONTEXT).requires
    stages = set(required.teacher_features)
    expected = "logits" if not stages else "pooled features" if stages == {"pooled"} else "feature maps"
    assert KINDS[kind].asks == expected
    assert KINDS[kind].from_bank == (expected != "feature maps")
    spec = recipe.objective.model_dump()
    assert all(spec[name] == value for name, value in KINDS[kind].settings.items())


def test_one_of_them_tells_every_key_that_it_takes():
    found, keys = describe_objective("dkd")
    assert found is not None
    paths = {key.path: key.default for key in keys}
    assert paths["objective.nckd_weight"] == "8.0"
    assert paths["objective.ramp_epochs"] == "20"
    assert "objective.kd_weight" not in paths
    assert len(paths) == len(keys), "a key is there once"
    with pytest.raises(UsageError, match="no objective 'dkdd'") as error:
        describe_objective("dkdd")
    assert "did you mean dkd?" in str(error.value.hint)


def test_the_command_lists_all_and_explains_one():
    done = CliRunner().invoke(app, ["recipe", "objectives"])
    assert done.exit_code == 0
    assert all(kind in done.stdout for kind in KINDS)
    one = CliRunner().invoke(app, ["recipe", "objectives", "ttm"])
    assert "objective.weighted" in one.stdout
    assert json.loads(CliRunner().invoke(app, ["recipe", "objectives", "--json"]).stdout)[1]["kind"] == "kd"
    assert CliRunner().invoke(app, ["recipe", "objectives", "nothing_like_it"]).exit_code == 2


def test_an_objective_that_is_none_is_told_where_they_are_listed():
    with pytest.raises(RecipeError) as error:
        load_recipe("quickstart_student", ["objective.kind=kdd"])
    assert error.value.hint == "what each objective does: distill recipe objectives"
