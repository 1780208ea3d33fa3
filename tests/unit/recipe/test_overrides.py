"""``--set``: what it changes, what it drops, and how its mistakes are told."""

from __future__ import annotations

import copy

import pytest

from distill.errors import RecipeError
from distill.recipe import Recipe, apply_overrides, load_recipe, parse_recipe


def changed(text: str, *overrides: str) -> Recipe:
    return parse_recipe(text, source="r.yaml", overrides=overrides)


def mistakes(text: str, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        changed(text, *overrides)
    assert caught.value.hint
    return caught.value.message.splitlines()


def test_values_are_read_as_in_a_recipe(student: str) -> None:
    recipe = changed(
        student,
        "optim.lr=1e-3",
        "model.blocks=[2, 3]",
        "train.clip_norm=null",
        "optim.nesterov=false",
        "data.root=/data sets/x=y",
        "model.max_params=4_000_000",
    )
    assert recipe.optim.lr == 0.001
    assert recipe.model.blocks == (2, 3)
    assert recipe.train.clip_norm is None
    assert recipe.optim.nesterov is False
    assert recipe.data.root == "/data sets/x=y"
    assert recipe.model.max_params == 4_000_000


def test_the_rest_stays(student: str) -> None:
    before, after = parse_recipe(student, source="r.yaml"), changed(student, "train.epochs=3")
    assert after.train.epochs == 3
    assert after.model_copy(update={"train": before.train}) == before


def test_the_last_of_two_wins(student: str) -> None:
    assert changed(student, "train.epochs=3", "train.epochs=4").train.epochs == 4
    assert changed(student, "train.epochs=3", "train={batch_size: 2}").train.epochs == 200


def test_a_whole_section(student: str) -> None:
    recipe = changed(student, "schedule={kind: multistep, milestones: [3, 5]}")
    assert recipe.schedule.kind == "multistep"
    assert recipe.schedule.warmup_epochs == 0


def test_sections_are_made_where_there_are_none(student: str) -> None:
    recipe = changed(student, "train.early_stopping.patience=3", "augment.erase.size=8")
    assert recipe.train.early_stopping.patience == 3
    assert recipe.augment.erase.size == 8


def test_the_default_variant_where_the_recipe_names_none(student: str) -> None:
    without = "".join(line for line in student.splitlines(True) if not line.startswith(("optim", "schedule")))
    recipe = changed(without, "optim.lr=0.5", "schedule.warmup_epochs=2")
    assert (recipe.optim.name, recipe.optim.lr) == ("sgd", 0.5)
    assert (recipe.schedule.kind, recipe.schedule.warmup_epochs) == ("constant", 2.0)


@pytest.mark.parametrize("name", ["adam", "adamw", "radam", "nadam", "adamax", "adadelta", "adagrad", "rmsprop", "sgd"])
def test_another_optimizer_drops_what_only_the_old_one_knew(student: str, name: str) -> None:
    recipe = changed(student, f"optim.name={name}")
    assert recipe.optim.name == name
    assert recipe.optim.lr == 0.1
    assert recipe.optim.weight_decay == 0.0005
    if name in ("sgd", "rmsprop"):
        assert recipe.optim.momentum == 0.9


def test_another_objective_brings_its_own_weights_and_temperature() -> None:
    base = load_recipe("quickstart_student").objective  # kd, ce_weight 0.1, temperature 4
    dist = load_recipe("quickstart_student", ["objective.kind=dist"]).objective
    assert (dist.ce_weight, dist.temperature) == (1.0, 1.0)
    asked = load_recipe("quickstart_student", ["objective.kind=dist", "objective.temperature=2.0"]).objective
    assert (asked.ce_weight, asked.temperature) == (1.0, 2.0)
    assert load_recipe("quickstart_student", ["objective.kind=kd"]).objective == base
    ramped = apply_overrides({"objective": {"kind": "kd", "ramp_epochs": 3, "kd_weight": 0.5}}, ["objective.kind=mse"])
    assert ramped["objective"] == {"kind": "mse", "ramp_epochs": 3}


def test_what_an_override_set_is_never_dropped(student: str) -> None:
    assert mistakes(student, "optim.name=adam", "optim.momentum=0.5") == [
        "--set optim.momentum=0.5: unknown key 'optim.momentum' (a key of sgd, rmsprop; name is adam)"
    ]


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("optim={name: adam, lr: 0.01, momentum: 0.5}", "optim.momentum"),
        ("objective={kind: mse, temperature: 3}", "objective.temperature"),
    ],
)
def test_what_an_override_of_a_whole_section_wrote_is_never_dropped(student: str, override: str, key: str) -> None:
    (line,) = mistakes(student, override)
    assert f"unknown key '{key}'" in line


def test_the_last_choice_counts_where_a_whole_section_came_first(student: str) -> None:
    whole = "optim={name: sgd, momentum: 0.9, lr: 0.2}"
    recipe = changed(student, whole, "optim.name=adam")
    assert (recipe.optim.name, recipe.optim.lr) == ("adam", 0.2)
    assert changed(student, "optim.name=adam", whole).optim.momentum == 0.9
    assert mistakes(student, whole, "optim.name=adam", "optim.nesterov=true") == [
        "--set optim.nesterov=true: unknown key 'optim.nesterov' (a key of sgd; name is adam)"
    ]
    (line,) = mistakes(student, "optim={name: adam, momentum: 0.5}", "optim.name=adam")  # chosen once more
    assert "unknown key 'optim.momentum'" in line


def test_another_variant_after_a_whole_section_of_another(student: str) -> None:
    as_adam = student.replace("name: sgd", "name: adam").replace("momentum: 0.9", "eps: 1e-7")
    recipe = changed(as_adam, "optim={name: rmsprop, alpha: 0.9, momentum: 0.5}", "optim.name=adam")
    assert recipe.optim.name == "adam"


def test_what_no_variant_knows_is_never_dropped(student: str) -> None:
    (line,) = mistakes(student.replace("momentum:", "momentun:"), "optim.name=adam")
    assert line.startswith("r.yaml:10: unknown key 'optim.momentun'")


def test_another_schedule_or_model(student: str) -> None:
    text = student.replace("warmup_epochs: 5", "warmup_epochs: 5, min_lr: 0.01")
    assert changed(text, "schedule.kind=constant").schedule.warmup_epochs == 5
    assert changed(text, "schedule.kind=plateau").schedule.min_lr == 0.01
    assert changed(student, "model.name=tiny").model.max_params == 5_000_000
    timm = changed(student, "model.source=timm", "model.name=resnet18")
    assert (timm.model.source, timm.model.name) == ("timm", "resnet18")


@pytest.mark.parametrize("override", ["objective.kind=supervised", "objective={kind: supervised}"])
def test_a_supervised_objective_drops_the_teacher(student: str, override: str) -> None:
    recipe = changed(student, override)
    assert recipe.teacher is None
    assert recipe.objective.kind == "supervised"


def test_a_teacher_that_an_override_set_stays(student: str) -> None:
    (line,) = mistakes(student, "objective.kind=supervised", "teacher.run=x")
    assert line.startswith("--set teacher.run=x: teacher: is set but objective supervised asks none")


def test_an_unrelated_override_does_not_hide_a_teacher_too_many(student: str) -> None:
    text = student.replace("kind: kd, ce_weight: 0.1, kd_weight: 0.9, temperature: 4.0", "kind: supervised")
    (line,) = mistakes(text, "train.epochs=3")
    assert line.startswith("r.yaml:8: teacher: is set")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("optim.lrr=1", "unknown key 'optim.lrr' (did you mean 'lr'?)"),
        ("optm.lr=1", "unknown key 'optm' (did you mean 'optim'?)"),
        ("lr=1", "unknown key 'lr' (did you mean 'optim.lr'?)"),
        ("train.epochs=yes", "train.epochs: should be a whole number, got 'yes'"),
        ("train.epochs=null", "train.epochs: should be a whole number, got null"),
        ("optim.lr=1e999", "1e999 is too large a number"),
        ("optim.lr=.inf", "should be a finite number, got .inf"),
        ("optim.lr=@", "not valid YAML"),
        ("optim.lr=[1", "not valid YAML"),
        ("optim.lr=&a 1", "anchors"),
        ("optim.lr=!!float 1", "tags"),
        ("optim.lr=a: b", "write a section as {key: value}"),
        ("optim.lr=- 1", "write a section as {key: value}"),
        ("optim.lr=", "no value; write null"),
        ("optim.lr= # 1", "no value; write null"),
        ("optim.lr", "no '='"),
        ("", "no '='"),
        ("=1", "an empty key"),
        ("optim..lr=1", "an empty key"),
        (".lr=1", "an empty key"),
        ("model.blocks.0=4", "a list is set whole"),
        ("model.blocks[0]=4", "a list is set whole"),
        ("model.blocks.x=4", "'model.blocks' is a list; set it whole"),
        ("name.x=1", "'name' is no section of keys; it is 'r18_small'"),
        ("train.epochs.x=1", "'train.epochs' is no section of keys; it is 200"),
        (".".join("a" * 5000) + "=1", "no recipe nests so deep"),
        ("train.epochs=" + "[" * 5000, "nested more than"),
        ("train.epochs=" + "9" * 5000, "too large"),
        ("train.epochs=1\ntrain.seed: 2", "on one line"),
        ("train.ep\0ochs=1", "unknown key 'train.ep\\x00ochs' (did you mean 'epochs'?)"),
        ("train.epochs=\x07", "control character"),
        ("schedule.kind=multistep", "missing key 'schedule.milestones'"),
        ("schedule={kind: cosine, min: 3}", "unknown key 'schedule.min'"),
        ("optim.name=sg", "optim.name: should be sgd, adam"),
        ("model.source=teachers", "model.name: should be "),
        ("teacher=null", "objective kd needs a teacher: section"),
        ("teacher.bank=x", "teacher: name exactly one of"),
        ("role=teacher", "objective kd is a student's; role is teacher"),
        ("train.early_stopping.min_delta=1", "missing key 'train.early_stopping.patience'"),
    ],
)
def test_mistakes_name_their_override(student: str, override: str, expected: str) -> None:
    (line,) = mistakes(student, override)
    assert line.startswith("--set ")
    assert expected in line
    assert len(line) < 300
    assert line.isprintable()


def test_mistakes_of_the_file_come_first_and_keep_their_lines(student: str) -> None:
    text = student.replace("batch_size: 128", "batch_size: 0")
    assert mistakes(text, "optim.lrr=1", "nonsense", "data.root=5") == [
        "r.yaml:14: train.batch_size: should be a whole number from 1 to 1,000,000, got 0",
        "--set optim.lrr=1: unknown key 'optim.lrr' (did you mean 'lr'?)",
        "--set nonsense: no '='; write --set section.key=value",
        "--set data.root=5: data.root: should be text, got 5",
    ]


def test_an_override_repairs_a_mistake_of_the_file(student: str) -> None:
    assert changed(student.replace("epochs: 200", "epochs: many"), "train.epochs=2").train.epochs == 2


def test_apply_overrides_leaves_its_tree_alone() -> None:
    tree = {"optim": {"name": "sgd", "momentum": 0.9}, "teacher": {"run": "x"}}
    before = copy.deepcopy(tree)
    assert apply_overrides(tree, ["optim.name=adam", "train.epochs=3"]) == {
        "optim": {"name": "adam"},
        "teacher": {"run": "x"},
        "train": {"epochs": 3},
    }
    assert tree == before


def test_apply_overrides_tells_all_that_do_not_fit() -> None:
    with pytest.raises(RecipeError) as caught:
        apply_overrides({"name": "x"}, ["a", "name.y=1"])
    assert len(caught.value.message.splitlines()) == 2


@pytest.mark.parametrize(
    ("key", "meant"), [("optim.learning_rate", "lr"), ("train.bs", "batch_size"), ("optim.wd", "weight_decay")]
)
def test_what_other_tools_call_a_key_is_understood(student: str, key: str, meant: str) -> None:
    (line,) = mistakes(student, f"{key}=1")
    assert line.endswith(f"unknown key '{key}' (did you mean '{meant}'?)")


def test_it_is_in_another_section_too(student: str) -> None:
    (line,) = mistakes(student, "train.learning_rate=1")
    assert line.endswith("unknown key 'train.learning_rate' (did you mean 'optim.lr'?)")
