"""``distill recipe new``: recipes for pictures that nobody trained on, which run as they stand."""

from __future__ import annotations

import json
import re
import shlex
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
import yamlcore
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from distill.cli import app
from distill.data.survey import survey
from distill.models import head_parameters, meta_model, params_of, stages
from distill.pipeline import Options, dry_run
from distill.pipeline.draft import draft_recipes
from distill.recipe import load_recipe, parse_recipe
from distill.recipe.schema import DataSpec
from distill.train.optim import build_optimizer


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(tmp_path)
    return lambda *args: CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=False)


def _pictures(root: Path, sizes: dict[str, int], side: int = 40) -> Path:
    rng = np.random.default_rng(0)
    for number, (label, count) in enumerate(sizes.items()):
        (root / label).mkdir(parents=True)
        for place in range(count):
            pixels = rng.integers(0, 60, (side, side + 20, 3)) + np.array([80 * (number % 3), 60, 40])
            Image.fromarray(pixels.astype(np.uint8)).save(root / label / f"{place}.png")
    return root


def test_what_is_seen(tmp_path: Path) -> None:
    root = _pictures(tmp_path / "photos/train", {"cat": 12, "dog": 4}).parent
    _pictures(root / "test", {"cat": 2, "dog": 3}, side=8)
    found = survey(DataSpec(name="folder", root=str(root)))
    assert (found.classes, found.counts, found.per_class) == (("cat", "dog"), {"train": 12 + 4, "test": 5}, (12, 4))
    assert (found.side, found.sides, found.imbalance) == (40, (40, 40), 3.0)
    assert found.memory_mb(32) == pytest.approx(21 * 3 * 32 * 32 / 1e6)


def test_an_archive_is_seen_alike(tmp_path: Path) -> None:
    root = _pictures(tmp_path / "photos", {"cat": 6, "dog": 4})
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in sorted(root.rglob("*.png")):
            archive.write(path, path.relative_to(tmp_path))
    one, other = (survey(DataSpec(name="folder", root=str(each))) for each in (root, tmp_path / "photos.zip"))
    assert (one.classes, one.counts, one.per_class, one.side) == (
        other.classes, other.counts, other.per_class, other.side,
    )  # fmt: skip


def test_the_recipes_run_by_the_commands_that_are_printed(cli: Callable[..., Result], tmp_path: Path) -> None:
    _pictures(tmp_path / "photos", {"cat": 20, "dog": 20, "eel": 5})
    made = cli("recipe", "new", "photos")
    assert made.exit_code == 0, made.stderr
    assert "3, 5 to 20 training pictures each" in made.stdout
    assert "of the training pictures 9 for testing, 4 for validation; 32 to train on" in made.stdout
    assert "wrote recipe.schema.json" in made.stderr
    assert "the teacher's first run downloads timm's weights; without a network: --teacher-weights FILE" in made.stderr
    teach, learn, alone, judge = (line for line in made.stdout.splitlines() if line.startswith("distill "))
    # the teacher smaller and without weights, for want of a network and of time
    changes = ("model.name=resnet10t", "model.weights=none", "train.epochs=1", "train.freeze_backbone_epochs=0")
    small = [word for change in changes for word in ("--set", change)]
    small += ["--threads", "1", "--device", "cpu"]
    result = cli(*shlex.split(teach)[1:], *small)
    assert result.exit_code == 0, result.stderr
    assert "next: distill student --recipe photos_student.yaml --teacher runs/photos_teacher/001" in result.stderr
    result = cli(*shlex.split(learn)[1:], "--set", "train.epochs=1", "--threads", "1", "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    assert "next: distill student --recipe photos_scratch.yaml" in result.stderr
    assert json.loads((tmp_path / "runs/photos_student/001/run.json").read_text())["status"] == "finished"

    result = cli(*shlex.split(alone)[1:], "--set", "train.epochs=1", "--threads", "1", "--device", "cpu", "-q")
    assert result.exit_code == 0, result.stderr
    result = cli(*shlex.split(judge)[1:], "--no-latency", "--json")
    assert result.exit_code == 0, result.stderr
    verdicts = {row["name"]: row["baseline_verdict"] for row in json.loads(result.stdout)["rows"]}
    assert verdicts["photos_student"] in ("better", "worse", "cannot tell"), "whether the teacher was worth it"


def test_recipes_say_where_a_relative_folder_is_looked_for(cli: Callable[..., Result], tmp_path: Path) -> None:
    root = _pictures(tmp_path / "photos", {"cat": 20, "dog": 20})
    for data, name, is_told in (("photos", "near", True), (str(root), "far", False)):
        assert cli("recipe", "new", data, "--name", name).exit_code == 0
        for recipe in ("teacher", "student", "scratch"):
            told = "from the folder in which a command is typed" in Path(f"{name}_{recipe}.yaml").read_text()
            assert told == is_told, f"{name}_{recipe}"


def test_the_baseline_is_the_student_without_its_teacher(cli: Callable[..., Result], tmp_path: Path) -> None:
    _pictures(tmp_path / "photos", {"cat": 20, "dog": 20})
    assert cli("recipe", "new", "photos").exit_code == 0
    taught, alone = (load_recipe(f"photos_{name}.yaml").model_dump() for name in ("student", "scratch"))
    differ = {key for key in taught if taught[key] != alone[key]}
    assert differ == {"name", "role", "teacher", "objective"}


def test_pictures_without_labels_are_the_students(cli: Callable[..., Result], tmp_path: Path) -> None:
    _pictures(tmp_path / "photos", {"cat": 20, "dog": 20})
    _pictures(tmp_path / "more", {"2025/summer": 30, "2026": 41})
    made = cli("recipe", "new", "photos", "--unlabelled", "more")
    assert made.exit_code == 0, made.stderr
    assert "71, for the student" in made.stdout
    teacher, student = (load_recipe(f"photos_{role}.yaml") for role in ("teacher", "student"))
    assert teacher.data.unlabelled is None
    # 29 of the 40 are left when test and validation pictures are set aside, and 0.71 is 71 of 100
    assert (student.data.unlabelled, student.data.unlabelled_share) == ("more", 0.71)
    text = Path("photos_student.yaml").read_text()
    assert student.augment.views is None, "each picture is shown once an epoch"
    ((epochs, steps),) = re.findall(r"(\d+) epochs are about ([\d,]+) steps", text)
    shown = -(-29 * 32 // 9)  # in batches of 32, 23 of them without a label
    assert steps == f"{-(-shown // 32) * int(epochs):,}"
    alone = load_recipe("photos_scratch.yaml")
    assert (alone.role, alone.teacher, alone.data.unlabelled) == ("baseline", None, None)
    assert alone.train.epochs == int(steps.replace(",", "")), "29 images are one batch: as many steps"


@pytest.mark.parametrize("where", ["rest", "photos/rest/below"])
def test_where_pictures_without_labels_may_lie(cli: Callable[..., Result], tmp_path: Path, where: str) -> None:
    _pictures(tmp_path / "photos/train", {"cat": 20, "dog": 20})
    _pictures(tmp_path / where, {"all": 40})
    made = cli("recipe", "new", "photos", "--unlabelled", where)
    assert made.exit_code == 0, made.stderr
    unlabelled = load_recipe("photos_student.yaml").data.unlabelled
    assert unlabelled == ("./rest" if where == "rest" else where), "rest alone is what a limit leaves out"


def test_of_many_pictures_without_labels_an_epoch_shows_a_part(tmp_path: Path) -> None:
    root = _pictures(tmp_path / "photos", {"cat": 10, "dog": 10})
    more = _pictures(tmp_path / "more", {"all": 1000}, side=8)
    recipe = parse_recipe(draft_recipes(root, unlabelled=more).student, source="test")
    assert recipe.data.unlabelled_share == 0.9
    # 14 labels with nine others each, of 1,014 pictures
    assert recipe.augment.views == pytest.approx(recipe.train.epochs * 14 * 10 / 1014, rel=0.15)


@pytest.mark.parametrize(
    ("where", "code", "refusal"),
    [
        ("photos", 2, "holds labelled pictures"),
        (".", 2, "holds labelled pictures"),
        ("photos/cat", 2, "holds labelled pictures"),
        ("linked", 2, "holds labelled pictures"),
        ("nothing", 4, "nothing: no such folder"),
        ("few", 2, "holds 3 pictures: too few"),
        ("empty", 1, "empty holds no"),
    ],
)
def test_what_cannot_be_pictures_without_labels(
    cli: Callable[..., Result], tmp_path: Path, where: str, code: int, refusal: str
) -> None:
    _pictures(tmp_path / "photos", {"cat": 20, "dog": 20})
    _pictures(tmp_path / "few", {"all": 3})
    (tmp_path / "empty").mkdir()
    _pictures(tmp_path / "linked", {"all": 40})
    (tmp_path / "linked/more").symlink_to(tmp_path / "photos/dog", target_is_directory=True)
    made = cli("recipe", "new", "photos", "--unlabelled", where)
    assert made.exit_code == code
    assert refusal in made.stderr
    assert not Path("photos_student.yaml").exists()


@pytest.mark.parametrize(
    ("side", "kept", "why"),
    [
        (20, 32, "they are smaller: enlarged"),
        (39, 32, "the usual size nearest to theirs"),
        (70, 64, "the usual size nearest to theirs"),
        (94, 96, "the usual size nearest to theirs"),  # not 64, which would lose a third of the detail
        (300, 224, "the largest usual size"),
    ],
)
def test_pictures_are_kept_at_the_usual_size_nearest_to_theirs(tmp_path: Path, side: int, kept: int, why: str) -> None:
    _pictures(tmp_path / "photos", {"cat": 3, "dog": 3}, side=side)
    draft = draft_recipes(tmp_path / "photos")
    for text in (draft.teacher, draft.scratch, draft.student):
        recipe = parse_recipe(text, source="test")
        assert recipe.data.side == recipe.model.input_size == kept
        assert f"# kept at {kept} pixels: {why}\n" in text
    assert params_of(recipe.model, 2) < 5_000_000
    assert f"{params_of(recipe.model, 2):,} parameters" in draft.student


WEIGHTS = "tf_efficientnet_lite0", "resnet10t"


def _weights(name: str, path: Path) -> Path:
    save_file(timm.create_model(name, num_classes=5).state_dict(), path)
    return path


def test_networks_of_timm_begin_from_files_of_weights(cli: Callable[..., Result], tmp_path: Path) -> None:
    _pictures(tmp_path / "photos", {"cat": 20, "dog": 20})
    lite, small = (_weights(name, tmp_path / f"{name}.safetensors") for name in ("tf_efficientnet_lite0", "resnet10t"))
    chosen = ["--teacher", "tf_efficientnet_lite0", "--teacher-weights", lite.name]
    made = cli("recipe", "new", "photos", *chosen, "--student", "resnet10t", "--student-weights", small.name)
    assert made.exit_code == 0, made.stderr
    assert "downloads" not in made.stderr
    assert "8 images: an accuracy of 90% is known to ±" in made.stdout
    teacher, student = (load_recipe(f"photos_{role}.yaml") for role in ("teacher", "student"))
    assert (teacher.model.name, teacher.model.stem, teacher.model.input_size) == (WEIGHTS[0], "imagenet", 128)
    assert (student.model.name, student.model.stem, student.model.input_size) == (WEIGHTS[1], "cifar", 48)
    assert teacher.data.side == student.data.side == 48
    text = Path("photos_student.yaml").read_text()
    assert f"timm's resnet10t with a file's weights, {params_of(student.model, 2):,} parameters" in text
    commands = [line for line in made.stdout.splitlines() if line.startswith("distill ")]
    assert len(commands) == 4
    for command in commands[:2]:
        short = ["--set", "train.epochs=1", "--threads", "1", "--device", "cpu", "-q"]
        assert (done := cli(*shlex.split(command)[1:], *short)).exit_code == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "side", "size", "optimizer"),
    [
        ("resnet152", 32, 32, "sgd"),
        ("resnetv2_50x1_bit", 300, 224, "sgd"),
        ("mobilenetv4_conv_small", 32, 128, "adamw"),
        ("mobilenetv4_conv_small.e2400_r224_in1k", 160, 160, "adamw"),
        ("convnext_tiny", 300, 224, "adamw"),
        ("vit_tiny_patch16_224", 32, 224, "adamw"),
        ("swin_tiny_patch4_window7_224", 70, 224, "adamw"),
        ("rdnet_tiny", 32, 128, "adamw"),
    ],
)
def test_each_family_of_timm_has_a_size_and_an_optimizer(
    tmp_path: Path, name: str, side: int, size: int, optimizer: str
) -> None:
    root = _pictures(tmp_path / "photos", {"cat": 3, "dog": 3}, side=side)
    recipe = parse_recipe(draft_recipes(root, teacher=name).teacher, source="test", overrides=["model.weights=none"])
    assert (recipe.model.name, recipe.model.input_size, recipe.optim.name) == (name, size, optimizer)
    network = meta_model(recipe.model, 2)
    norms = {type(m).__name__ for m in network.modules() if "Norm" in type(m).__name__}
    layer_norms = not any("BatchNorm" in norm or "GroupNorm" in norm for norm in norms)
    assert (recipe.optim.lr == 5e-4) is (recipe.train.clip_norm is not None) is layer_norms
    assert network(torch.empty(1, 3, size, size, device="meta")).shape == (1, 2)
    depths = stages(network) if recipe.optim.layer_decay < 1 else ()  # of rdnet timm does not tell
    shape = {"head": head_parameters(network), "stages": depths, "device": torch.device("cpu")}
    assert build_optimizer(network, recipe.optim, **shape).param_groups


@pytest.mark.parametrize(
    ("options", "code", "refusal"),
    [
        ("--teacher resnt34", 2, "--teacher: timm has no model 'resnt34' (did you mean resnet34"),
        ("--teacher mixer_s32_224", 2, "timm has no weights of it"),
        ("--teacher sehalonet33ts", 2, "cannot take images of 128 pixels"),
        ("--student vit_tiny_patch16_224", 2, "5,524,802 parameters; a student has at most 5,000,000"),
        ("--student resnet10t --student-weights none.safetensors", 4, "none.safetensors: no such file"),
        ("--teacher-weights photos/cat/0.png", 2, "no .safetensors file"),
        ("--student-weights photos/cat/0.png", 2, "--student-weights without --student"),
        ("--teacher-weights photos", 2, "photos: a folder"),
        ("--teacher-weights other.safetensors", 2, "other.safetensors does not fit resnet34"),
        (
            "--student resnet10t --student-weights cut.safetensors",
            2,
            "cut.safetensors is not a readable safetensors file",
        ),
        ("--unlabelled cut.safetensors", 4, "cut.safetensors: a file, and archives are not read here"),
    ],
)
def test_networks_that_cannot_be(
    cli: Callable[..., Result], tmp_path: Path, options: str, code: int, refusal: str
) -> None:
    _pictures(tmp_path / "photos", {"cat": 20, "dog": 20})
    other = _weights("resnet10t", tmp_path / "other.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(other[:100_000])
    made = cli("recipe", "new", "photos", *options.split())
    assert made.exit_code == code
    assert refusal in made.stderr
    assert len(made.stderr.splitlines()) == 2, "what, and what to do"
    assert not list(Path().glob("*.yaml"))


def test_the_steps_are_those_of_the_images_that_are_left(tmp_path: Path) -> None:
    """A fifth for testing, a tenth of the rest for validation."""
    root = _pictures(tmp_path / "photos", {"cat": 200, "dog": 200}, side=32)
    draft = draft_recipes(root)
    alone = ["role=baseline", "objective.kind=supervised", "teacher=null"]
    recipe = parse_recipe(draft.student, source="test", overrides=alone)
    (told,) = re.findall(r"(\d+) epochs are about ([\d,]+) steps", draft.student)
    assert int(told[0]) == recipe.train.epochs
    report = dry_run(recipe, options=Options(runs_dir=tmp_path / "runs", threads=1, device="cpu"))
    assert int(told[1].replace(",", "")) == report.steps_per_epoch * recipe.train.epochs


def test_what_is_there_decides_what_is_set_aside(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        _pictures(tmp_path / "photos" / split, {"cat": 3, "dog": 3})
    text = draft_recipes(tmp_path / "photos").student
    assert "test_fraction" not in text
    assert "val_fraction" not in text
    assert "test_fraction" in draft_recipes(tmp_path / "photos/train").student


@pytest.mark.parametrize("name", ["my photos: 2026", 'quo"te', "#hash", "{a: b}", "- x", "line\nbreak", "é", "..."])
def test_a_folders_name_is_data(tmp_path: Path, name: str) -> None:
    root = _pictures(tmp_path / name, {"cat": 3, "dog": 3})
    draft = draft_recipes(root)
    for text in (draft.teacher, draft.student):
        recipe = parse_recipe(text, source="test")
        assert recipe.data.root == str(root)
        assert yaml.load(text, Loader=yamlcore.CoreLoader)["data"]["root"] == str(root)


@pytest.mark.parametrize("name", ["a\x01b", "d\udcff"])
def test_a_path_that_no_recipe_can_hold_is_named(cli: Callable[..., Result], tmp_path: Path, name: str) -> None:
    result = cli("recipe", "new", tmp_path / name)
    assert result.exit_code == 2
    assert "stands in no recipe" in result.stderr
    assert len(result.stderr.splitlines()) == 2


def test_nothing_is_written_over(cli: Callable[..., Result], tmp_path: Path) -> None:
    _pictures(tmp_path / "photos", {"cat": 3, "dog": 3})
    (tmp_path / "photos_student.yaml").write_text("mine")
    result = cli("recipe", "new", "photos")
    assert result.exit_code == 2
    assert "photos_student.yaml: there already" in result.stderr
    assert (tmp_path / "photos_student.yaml").read_text() == "mine"
    assert not (tmp_path / "photos_teacher.yaml").exists()
    assert cli("recipe", "new", "photos", "--name", "pets").exit_code == 0
    assert load_recipe("pets_student.yaml").teacher.run == "pets_teacher"
    assert cli("recipe", "new", "photos", "--name", "a b").exit_code == 2
    assert cli("recipe", "new", "photos", "--name", "").exit_code == 2


def test_a_folder_of_something_else(cli: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    assert cli("recipe", "new", "notes").exit_code == 1
    result = cli("recipe", "new", "nowhere")
    assert result.exit_code == 4
    assert len(result.stderr.splitlines()) <= 2
    broken = tmp_path / "broken"
    for label in ("a", "b"):
        (broken / label).mkdir(parents=True)
        (broken / label / "0.png").write_bytes(b"no picture")
    result = cli("recipe", "new", "broken")
    assert result.exit_code == 1
    assert "no picture of a sample of broken can be opened" in result.stderr


def test_files_of_other_kinds_are_named_and_jfif_is_jpeg(cli: Callable[..., Result], tmp_path: Path) -> None:
    root = _pictures(tmp_path / "phone", {"cat": 4, "dog": 4})
    for number, path in enumerate(sorted((root / "dog").iterdir())):
        path.rename(path.with_suffix(".HEIC" if number else ".avif"))
    said = cli("recipe", "new", "phone").stderr
    assert "phone has one class folder with pictures: cat; no file in dog/ (.avif, .heic) is named like a PNG" in said
    for path in (root / "cat").iterdir():
        path.rename(path.with_suffix(".heic"))
    assert "no file in cat/ (.heic), dog/ (.avif, .heic) is named like" in cli("recipe", "new", "phone").stderr
    (tmp_path / "deep/animals/cat").mkdir(parents=True)
    (tmp_path / "deep/animals/labels.csv").write_text("")
    assert "expected train/<class>/<image>" in cli("recipe", "new", "deep").stderr
    for label, number in (("cat", 0), ("cat", 1), ("dog", 0), ("dog", 1)):
        Image.new("RGB", (40, 40)).save(root / label / f"{number}.jfif", format="JPEG")
    found = survey(DataSpec(name="folder", root=str(root)))
    assert found.counts == {"train": 4}
    assert found.note == "ignored 8 files or folders not named like a PNG, JPEG, WebP, BMP, GIF or TIFF"


def test_one_picture_of_each_class_makes_no_recipe(cli: Callable[..., Result], tmp_path: Path) -> None:
    _pictures(tmp_path / "single", {"cat": 1, "dog": 1})
    result = cli("recipe", "new", "single")
    assert result.exit_code == 1
    assert "single has one picture of each class, and no test/" in result.stderr
    assert not list(tmp_path.glob("*.yaml"))


def test_a_hint_is_a_command_to_copy(cli: Callable[..., Result], tmp_path: Path) -> None:
    _pictures(tmp_path / "photos/inner/train", {"cat": 3, "dog": 3})
    for wrong, hint in (
        ("nowhere", "an archive: distill recipe new PATH"),
        ("photos", "distill recipe new photos/inner?"),
    ):
        stderr = cli("recipe", "new", wrong).stderr
        assert hint in stderr
        assert "--set" not in stderr


def test_pictures_that_cannot_be_used_are_named_before_anything_is_trained(tmp_path: Path) -> None:
    root = _pictures(tmp_path / "photos", {"cat": 80, "dog": 80})
    cut, other = root / "cat/7.png", root / "dog/33.png"
    cut.write_bytes(cut.read_bytes()[:60])
    other.write_bytes(b"no picture")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in sorted(root.rglob("*.png")):
            archive.write(path, path.relative_to(tmp_path))
    for place in (root, tmp_path / "photos.zip"):
        spec = DataSpec(name="folder", root=str(place))
        note = survey(spec, check=True).note
        assert note is not None
        assert "data.skip_bad" not in str(survey(spec).note)  # who only wants sizes reads a sample
        assert "2 of 160 pictures cannot be used (cat/7.png, dog/33.png): repair or remove them" in note
        assert "data.skip_bad: true in the recipes" in note
