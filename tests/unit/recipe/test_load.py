"""Loading recipes: what is right loads, and every mistake is one line that says where."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from distill.errors import RecipeError
from distill.recipe import Recipe, load_recipe, parse_recipe
from distill.recipe.mistakes import MAX_MISTAKES


def mistakes_in(text: str, *, overrides: tuple[str, ...] = ()) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, source="bad.yaml", overrides=overrides)
    assert not re.search("pydantic|Input should|https?://|valid (string|integer)", caught.value.message)
    assert caught.value.hint
    return caught.value.message.splitlines()


def test_a_whole_recipe(student_file: Path) -> None:
    recipe = load_recipe(student_file)
    assert isinstance(recipe, Recipe)
    assert recipe.optim.weight_decay == 0.0005
    assert recipe.model.max_params == 5_000_000
    assert recipe.model.blocks == (1, 1)
    assert recipe.train.epochs == 200
    assert recipe.schedule.warmup_epochs == 5.0
    assert load_recipe(str(student_file)) == recipe


def test_a_byte_order_mark_and_windows_lines(student_file: Path, student: str) -> None:
    expected = load_recipe(student_file)
    student_file.write_bytes(b"\xef\xbb\xbf" + student.replace("\n", "\r\n").encode())
    assert load_recipe(student_file) == expected


def test_every_mistake_at_once_in_the_order_of_lines(student: str) -> None:
    text = (
        student.replace("lr: 0.1", "lrr: 0.1")
        .replace("epochs: 200", "epochs: yes")
        .replace("role: student  ", "role: studnet  ")
        .replace("hflip: 0.5", "hflip: 2")
        .replace("kind: cosine", "kind: coscine")
        .replace("batch_size: 128", "batch_size: 0")
        .replace("source: students, name: resnet,", "source: students, name: resnet, kernel: big,")
    )
    assert mistakes_in(text) == [
        "bad.yaml:4: role: should be teacher, student or baseline, got 'studnet' (did you mean 'student'?)",
        "bad.yaml:6: augment.hflip: should be a number from 0 to 1, got 2",
        "bad.yaml:7: model.kernel: should be a whole number, got 'big'",
        "bad.yaml:10: unknown key 'optim.lrr' (did you mean 'lr'?)",
        "bad.yaml:11: schedule.kind: should be constant, multistep, exponential, cosine, warm_restarts, one_cycle, "
        "triangular or plateau, got 'coscine' (did you mean 'cosine'?)",
        "bad.yaml:13: train.epochs: should be a whole number, got 'yes'",
        "bad.yaml:14: train.batch_size: should be a whole number from 1 to 1,000,000, got 0",
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("epochs: 200", "epochs: 1e3", "13: train.epochs: should be a whole number from 1 to 100,000, got 1e3"),
        (
            "epochs: 200",
            'epochs: "200"',
            "13: train.epochs: should be a whole number, got '200' (leave out the quotes)",
        ),
        ("epochs: 200", "epochs:", "13: train.epochs: should be a whole number, got nothing"),
        ("epochs: 200", "epochs: null", "13: train.epochs: should be a whole number, got null"),
        ("epochs: 200", "epochs: true", "13: train.epochs: should be a whole number, got true"),
        ("epochs: 200", "epochs: 2020-01-01", "13: train.epochs: should be a whole number, got '2020-01-01'"),
        ("epochs: 200", "epochs: 1:30", "13: train.epochs: should be a whole number, got '1:30'"),
        ("epochs: 200", "epochs: {a: 1}", "13: train.epochs: should be a whole number, got {a}"),
        ("epochs: 200", "epochs:\n    many", "14: train.epochs: should be a whole number, got 'many'"),
        ("nesterov: true", "nesterov: yes", "10: optim.nesterov: should be true or false, got 'yes' (write true)"),
        ("lr: 0.1", "lr: 0", "10: optim.lr: should be a number above 0, got 0"),
        ("lr: 0.1", "lr: 1e10", "10: optim.lr: should be a number above 0, up to 1,000,000,000, got 1e10"),
        ("lr: 0.1", "lr: 1e400", "10: optim.lr: 1e400 is too large a number"),
        ("lr: 0.1", "lr: .nan", "10: optim.lr: should be a finite number, got .nan"),
        ("name: r18_small", "name: a b", "3: name: should be 1 to 64 letters, digits"),
        ("name: r18_small", "name: 2020", "3: name: should be 1 to 64 letters, digits"),
        ("blocks: [1, 1]", "blocks: [1, x]", "7: model.blocks[1]: should be a whole number, got 'x'"),
        ("blocks: [1, 1]", "blocks: []", "7: model.blocks: should be a list of whole numbers, not empty, got []"),
        ("blocks: [1, 1]", "blocks: 3", "7: model.blocks: should be a list of whole numbers, not empty, got 3"),
        ("blocks: [1, 1], ", "", "7: missing key 'model.blocks' (a list of whole numbers, not empty)"),
        (
            "views: null",
            "views: al",
            "6: augment.views: should be a whole number, all or null, got 'al' (did you mean 'all'?)",
        ),
        ("views: null", "erase: {sise: 3}", "6: unknown key 'augment.erase.sise' (did you mean 'size'?)"),
        ("views: null", "erase: ", "6: augment.erase: should be a section of keys, got nothing"),
        ("views: null", "erase: ~", "6: augment.erase: should be a section of keys, got ~"),
        (
            "views: null",
            "resized_crop: {scale: [0.1]}",
            "6: augment.resized_crop.scale: should be a list of 2 numbers, got [0.1]",
        ),
        (
            "views: null",
            "resized_crop: {scale: [0, 2]}",
            "6: augment.resized_crop.scale[0]: should be a number above 0, up to 1",
        ),
        ("name: cifar10", "name: cifar", "5: data.name: should be cifar10, cifar100, digits"),
        ("name: cifar10, ", "", "5: missing key 'data.name' (cifar10, cifar100, digits"),
        ("name: sgd", "name: adam, nesterov: 1, momentum: 2", "10: key 'optim.nesterov' is given twice"),
        ("name: sgd", "name: adam", "10: unknown key 'optim.momentum' (a key of sgd, rmsprop; name is adam)"),
        ("name: sgd, ", "", "10: missing key 'optim.name' (sgd, adam, "),
        ("name: sgd", "name: [sgd]", "10: optim.name: should be sgd, adam, "),
        (
            "source: students",
            "source: student",
            "7: model.source: should be timm, python, students or teachers, got 'student'",
        ),
        ("source: students, ", "", "7: missing key 'model.source' (timm, python, students or teachers)"),
        ("source: students", "source: timm", "7: unknown key 'model.blocks' (a key of students."),
        ("kind: kd, ", "", "9: missing key 'objective.kind' (supervised, kd, dkd"),
        (
            "teacher: {run: resnet152_cifar10, logits: auto}",
            "teacher: {}",
            "8: teacher: name exactly one of run, onnx, bank, banks",
        ),
        ("teacher: {run: resnet152_cifar10, logits: auto}\n", "", "8: objective kd needs a teacher: section"),
        ("role: student  ", "role: teacher  ", "9: objective kd is a student's; role is teacher"),
        (
            "{kind: cosine, warmup_epochs: 5}",
            "{kind: one_cycle, base_momentum: 0.96}",
            "11: schedule: base_momentum 0.96 is above max_momentum 0.95",
        ),
        ("schema_version: 1", "schema_version: 2", "2: schema_version: should be 1, got 2"),
        ("schema_version: 1", "lr: 1", "2: unknown key 'lr' (did you mean 'optim.lr'?)"),
        ("schema_version: 1", "Role: student", "2: unknown key 'Role' (did you mean 'role'?)"),
        ("schema_version: 1", '? "a\\nb"\n: 1', "2: unknown key 'a\\nb'"),
        ("schema_version: 1", "  x: 1", "3: not valid YAML"),
    ],
)
def test_one_mistake(student: str, old: str, new: str, expected: str) -> None:
    assert student.count(old) == 1
    found = mistakes_in(student.replace(old, new))
    assert any(line.startswith(f"bad.yaml:{expected}") for line in found), found


def test_an_unknown_model_lists_those_of_its_source(student: str) -> None:
    (line,) = mistakes_in(student.replace("name: resnet,", "name: resnett,").replace("blocks: [1, 1], ", ""))
    assert line.startswith("bad.yaml:7: model.name: should be ")
    assert "for source: students, got 'resnett' (did you mean 'resnet'?)" in line
    assert "tiny" in line
    assert "sgd" not in line


def test_a_model_name_of_the_wrong_type(student: str) -> None:
    text = re.sub("model: .*", "model: {source: timm, name: 3, weight: none}", student)
    assert mistakes_in(text) == [
        "bad.yaml:7: model.name: should be text, got 3",
        "bad.yaml:7: unknown key 'model.weight' (did you mean 'weights'?)",
    ]


def test_a_wrong_variant_still_has_its_unknown_keys_told(student: str) -> None:
    found = mistakes_in(student.replace("name: sgd, lr", "name: sg, lrr"))
    assert [line.split(":", 2)[2] for line in found] == [
        " optim.name: should be sgd, adam, adamw, radam, nadam, adamax, adadelta, adagrad or rmsprop, got 'sg' "
        "(did you mean 'sgd'?)",
        " unknown key 'optim.lrr' (did you mean 'lr'?)",
    ]


def test_a_section_where_text_or_a_section_may_stand(student: str) -> None:
    found = mistakes_in(student.replace("max_params: 5_000_000", "normalize: {mean: [1, 2], std: a, st: 1}"))
    assert [line.split(": ", 1)[1] for line in found] == [
        "model.normalize.mean: should be a list of 3 numbers, got [1, 2]",
        "model.normalize.std: should be a list of 3 numbers, got 'a'",
        "unknown key 'model.normalize.st' (did you mean 'std'?)",
    ]


def test_missing_sections_are_told_at_the_first_key() -> None:
    found = mistakes_in("\n# nothing but a name\nname: x\n")
    assert [line.split("'")[1] for line in found] == ["role", "data", "model"]
    assert all(line.startswith("bad.yaml:3: missing key ") for line in found)


def test_a_refused_value_is_told_once(student: str) -> None:
    text = student.replace("{kind: cosine, warmup_epochs: 5}", "&later {kind: cosine}").replace("lr: 0.1", "lr: !x 1")
    found = mistakes_in(text)
    assert [line.split(":")[1] for line in found] == ["10", "11"]


def test_views_all_names_what_to_turn_off(student: str) -> None:
    (line,) = mistakes_in(student.replace("views: null", "views: all, vflip: 0.1"))
    assert line.startswith("bad.yaml:6: augment: views: all ")
    assert line.endswith("turn off vflip")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "empty"),
        ("# nothing\n", "empty"),
        ("- a\n- b\n", "a recipe is a mapping of keys to values, got ['a', 'b']"),
        ("hello", "a recipe is a mapping of keys to values, got 'hello'"),
        ("3", "a recipe is a mapping of keys to values, got 3"),
        ("[" * 100_000, "nested more than"),
        ("&a [*a]", "anchors"),
    ],
)
def test_no_recipe_at_all(text: str, expected: str) -> None:
    (line,) = mistakes_in(text)
    assert line.startswith("bad.yaml:1: ")
    assert expected in line


def test_very_many_mistakes_are_cut() -> None:
    found = mistakes_in("\n".join(f"key{i}: {i}" for i in range(5000)))
    assert len(found) == MAX_MISTAKES + 1
    assert "and more" in found[-1]


def test_long_values_and_keys_are_cut() -> None:
    for line in mistakes_in(f"name: '{'x' * 100_000}'\n{'k' * 900}: 1\nrole: [{'1, ' * 9000}]"):
        assert len(line) < 250


def test_a_file_that_is_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes("name: x\n# caf\xe9\n".encode("latin-1"))
    with pytest.raises(RecipeError, match=r"latin\.yaml:2: not UTF-8 text"):
        load_recipe(path)


def test_a_binary_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.yaml"
    path.write_bytes(b"\x00\x01\x02PK")
    with pytest.raises(RecipeError, match=r"weights\.yaml:1: .*control character"):
        load_recipe(path)


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="a folder, not a recipe"):
        load_recipe(tmp_path)


def test_a_large_file(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_bytes(b"# comment\n" * 100_001)
    with pytest.raises(RecipeError, match="larger than 1 MB"):
        load_recipe(path)


@pytest.mark.parametrize("given", ["", "nowhere.yaml", "no/where.yaml", "nothing", "a\0b", "x" * 5000, "~", "\ud800"])
def test_no_such_recipe(given: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(given)
    assert len(caught.value.message.splitlines()) == 1
    assert caught.value.hint == "see them all: distill recipe list"


@pytest.mark.parametrize("suffix", [".yaml", ".yml"])
def test_a_file_may_be_named_without_its_ending(
    student: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("pets", "r18_small", "a/b"):
        Path(f"{name}{suffix}").parent.mkdir(exist_ok=True)
        Path(f"{name}{suffix}").write_text(student + "  # of this folder\n")
    assert load_recipe("pets") == load_recipe("a/b") == load_recipe(f"pets{suffix}")
    assert load_recipe("r18_small") != load_recipe("pets"), "a bundled recipe is meant by its bare name"


def test_a_file_that_may_not_be_read(student_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr("distill.recipe.load.os.open", refuse)  # root reads everything: chmod would prove nothing there
    with pytest.raises(RecipeError, match=r"student\.yaml: cannot be read: Permission denied"):
        load_recipe(student_file)


def test_messages_name_the_file_as_it_was_given(student_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(student_file.parent)
    student_file.write_text("name: x")
    with pytest.raises(RecipeError) as caught:
        load_recipe("student.yaml")
    assert all(line.startswith("student.yaml:1: ") for line in caught.value.message.splitlines())


def test_patience_with_the_last_epoch_is_refused():
    with pytest.raises(RecipeError, match=r"early_stopping watches train\.monitor, and of last the next epoch"):
        load_recipe("quickstart_scratch", ["train.early_stopping={patience: 3}", "train.monitor=last"])


@pytest.mark.parametrize("watcher", ["train.early_stopping={patience: 3}", "schedule={kind: plateau}"])
def test_what_watches_validation_needs_some(watcher: str) -> None:
    with pytest.raises(RecipeError, match="watches validation"):
        load_recipe("quickstart_scratch", [watcher, "data.val_fraction=0"])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["schedule.min_lr=0.2"], "schedule.min_lr 0.2 is above optim.lr 0.1"),
        (["schedule={kind: plateau, min_lr: 0.2}"], "schedule.min_lr 0.2 is above optim.lr 0.1"),
        (["objective={kind: kd, ce_weight: 0, kd_weight: 0}"], "every weight is 0: nothing is learned"),
        (
            ["objective={kind: kd, ce_weight: 0, kd_weight: 0, add: [{kind: dist, inter_weight: 0, intra_weight: 0}]}"],
            "every weight is 0: nothing is learned",
        ),
        (
            ["objective={kind: kd, ce_weight: 0, until_epoch: 3, add: [{kind: mse, mse_weight: 0}]}"],
            "nothing is learned once the last term has ended",
        ),
        (["optim.lookahead={k: 2, alpha: 0}"], "alpha 0 takes back whatever is learned"),
        (["augment.resized_crop={}"], "crop_padding and resized_crop are two ways to crop"),
        (["augment.hflip_alternates=true", "augment.views=3"], "augment.views 3 is odd"),
    ],
)
def test_what_would_learn_nothing_or_the_wrong_way_round_is_refused(
    student: str, changes: list[str], told: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(student, source="student.yaml", overrides=changes)
    assert told in caught.value.message


@pytest.mark.parametrize(
    "changes",
    [
        ["schedule.min_lr=0.1"],
        ["objective={kind: kd, ce_weight: 0, kd_weight: 0, add: [{kind: dist, inter_weight: 0}]}"],
        ["objective={kind: kd, ce_weight: 0.5, kd_weight: 0}"],
        ["optim.lookahead={k: 2, alpha: 0, alpha_end: 0.5}"],
        ["augment.hflip_alternates=true", "augment.views=4"],
        ["augment.hflip_alternates=true", "augment.views=201"],
    ],
)
def test_what_is_beside_it_is_a_recipe(student: str, changes: list[str]) -> None:
    assert parse_recipe(student, source="student.yaml", overrides=changes).role == "student"


def _said(text: str) -> list[str]:
    return [line.split(": ", 1)[1] for line in mistakes_in(text)]


def test_a_wrong_optimiser_hides_no_wrong_rate(student: str) -> None:
    found = _said(student.replace("name: sgd, lr: 0.1", "name: sdg, lr: -1"))
    assert len(found) == 2
    assert found[0].endswith("got 'sdg' (did you mean 'sgd'?)")
    assert found[1] == "optim.lr: should be a number above 0, got -1"


def test_an_unknown_model_hides_no_missing_teacher() -> None:
    text = "name: x\nrole: student\ndata: {name: cifar10}\nmodel: {source: students, name: resnettt}\n"
    found = _said(text + "objective: {kind: kd}\noptim: {name: sgd}\ntrain: {epochs: 3}\n")
    assert found[0].startswith("model.name: should be")
    assert found[1] == "objective kd needs a teacher: section"
    assert len(found) == 2


def test_a_mistaken_teacher_is_not_a_missing_one(student: str) -> None:
    found = _said(student.replace("{run: resnet152_cifar10,", "{run: resnet152_cifar10, bank: b,"))
    assert len(found) == 1
    assert "name exactly one of" in found[0]


def test_nothing_is_said_of_what_was_put_in_the_place_of_a_mistake() -> None:
    text = "name: x\nrole: student\ndata: {name: cifar10}\nmodel: {source: students, name: resnettt}\n"
    found = _said(text + "objective: {kind: kdd}\noptim: {name: sgd}\ntrain: {epochs: 3}\n")
    assert [line.split(":")[0] for line in found] == ["model.name", "objective.kind"]


def test_a_text_read_again_is_a_recipe_of_its_own(student: str) -> None:
    """Nothing that somebody changes in one, as a list among the options of one's own code, is in the next."""
    change = ("model={source: python, name: 'mine:net', options: {widths: [1, 2]}}",)
    one, two = (parse_recipe(student, source="r.yaml", overrides=change) for _ in range(2))
    assert one == two
    one.model.options.values["widths"].append(3)
    assert two.model.options.values["widths"] == [1, 2]
    assert parse_recipe(student, source="r.yaml", overrides=change) == two


def test_a_stage_that_is_none_is_told_in_words(student: str) -> None:
    first, *_ = mistakes_in(student, overrides=("objective={kind: at, features: [layer2]}",))
    assert "should be stem, stage1, stage2 and so on (or stage1.preact), or pooled, got 'layer2'" in first
