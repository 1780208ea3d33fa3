"""``distill import``: a checkpoint that was trained elsewhere, as a run like any other."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from typer.testing import CliRunner

from distill.certificate import certify
from distill.cli import app
from distill.comparison import compare
from distill.errors import DataError, RunError, UsageError
from distill.events import Note
from distill.files import sha256_file
from distill.models import build_model
from distill.models.trained import load_trained
from distill.pipeline import (
    Options,
    RunResult,
    export,
    finetune_teacher,
    import_weights,
    prune,
    rerun,
    soup,
    train_student,
)
from distill.pipeline.card import model_card
from distill.recipe import load_recipe
from distill.runs import RunFolder

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Options:
    return Options(runs_dir=tmp_path_factory.mktemp("imported") / "runs", threads=1, device="cpu")


@pytest.fixture(scope="module")
def file(teacher_run: RunResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny teacher's weights as another program would have saved them, under names of its own."""
    state = load_trained(RunFolder(teacher_run.run), device=CPU, precision="fp32").module.state_dict()
    path = tmp_path_factory.mktemp("theirs") / "theirs.pth"
    names = {key: f"net{at}.{key.rpartition('.')[2]}" for at, key in enumerate(state)}
    torch.save({"epoch": 7, "model": {names[key]: value for key, value in state.items()}}, path)
    return path


@pytest.fixture(scope="module")
def imported(file: Path, options: Options, teacher_recipe):
    return import_weights(file, teacher_recipe("name=theirs"), options=options)


def _answers(run: Path) -> torch.Tensor:
    trained = load_trained(RunFolder(run), device=CPU, precision="fp32")
    return trained(torch.arange(2 * 3 * 32 * 32, dtype=torch.float32).reshape(2, 3, 32, 32) % 256)


def test_it_answers_as_the_network_did_where_it_was_trained(imported, teacher_run: RunResult, file: Path) -> None:
    assert torch.equal(_answers(imported.run), _answers(teacher_run.run))
    assert (imported.entry, imported.by_order, imported.sha256) == ("model", True, sha256_file(file))
    before, run = RunFolder(teacher_run.run), RunFolder(imported.run)
    assert (imported.split, imported.images) == ("val", 15)
    assert imported.top1 == pytest.approx(before.result()["val_top1"])
    assert run.result()["val_top1"] == imported.top1
    assert (run.status, run.info.role, run.result()["epochs"]) == ("finished", "teacher", 0)
    assert run.recipe().model.normalize == before.recipe().model.normalize


def test_it_teaches_and_is_compared_exported_and_pruned(
    imported, options: Options, student_recipe, teacher_run: RunResult, tmp_path: Path
) -> None:
    by_theirs, by_ours = (
        train_student(student_recipe("train.epochs=1", f"name={name}"), teacher=teacher, options=options)
        for name, teacher in (("by_theirs", "theirs"), ("by_ours", str(teacher_run.run)))
    )
    ends = [load_trained(RunFolder(each.run), device=CPU).sha256 for each in (by_theirs, by_ours)]
    assert ends[0] == ends[1], "it teaches what the same network teaches that was trained here"
    comparison = compare([imported.run, by_theirs.run], latency=False)
    assert {row.name for row in comparison.rows} == {"theirs", "by_theirs"}
    assert any("trained elsewhere" in note for note in comparison.notes)
    assert export(imported.run, out=tmp_path / "theirs.onnx", options=options).parity.images > 0
    assert prune(imported.run, macs=0.8, train=False, options=options).run is None
    with pytest.raises(UsageError, match="was imported and not trained"):
        rerun(imported.run, options=options)


def test_its_card_and_certificate_say_that_its_training_is_not_known(
    imported, options: Options, tmp_path: Path
) -> None:
    card = model_card(str(imported.run), latency=False, options=options)
    assert "trained elsewhere" in card
    assert "is not known here" in card
    assert "| optimiser |" not in card
    assert "nothing that trains or chooses read the test images" not in card.lower()
    file = export(imported.run, out=tmp_path / "exports" / "theirs.onnx", options=options).file
    certificate = certify(file, run=str(imported.run), seconds=0.1, options=options).certificate
    (step, _) = certificate.steps
    assert (step.what, step.repeat) == ("imported", None)
    assert "not known" in step.reads["taught"]
    assert certificate.disjoint is None


def test_what_comes_of_it_says_that_its_training_is_not_known(
    imported, options: Options, student_recipe, teacher_recipe
) -> None:
    taught = train_student(student_recipe("train.epochs=1", "name=taught"), teacher=imported, options=options)
    split = ("train.epochs=1", "name=split", "data.val_fraction=0.5")
    apart = train_student(student_recipe(*split), teacher=imported, options=options)
    begun = finetune_teacher(
        teacher_recipe("train.epochs=1", "name=begun"), options=replace(options, init_from=str(imported.run))
    )
    of_begun = train_student(student_recipe("train.epochs=1", "name=of_begun"), teacher="begun", options=options)
    ensemble = train_student(
        student_recipe(*split[:1], "name=ensemble", "data.split_seed=3"), teacher=[imported, begun], options=options
    )
    unknown = "was trained elsewhere: whether validation or test images taught it is not known"
    for run, who in (
        (taught, f"its teacher {imported.run}"),
        (apart, f"its teacher {imported.run}"),  # nothing is made up of the split that its recipe has
        (begun, f"the run that it begins with, {imported.run},"),
        (of_begun, f"{imported.run}, whose weights are in {begun.run},"),
    ):
        assert RunFolder(run.run).info.extra["cautions"] == [f"{who} {unknown}"]
    assert f"its teacher {imported.run} {unknown}" in RunFolder(ensemble.run).info.extra["cautions"]
    card = model_card(str(taught.run), latency=False, options=options)
    assert "read the test images here; " in card
    assert "which it comes of, was trained elsewhere, on images that are not known" in card


def test_it_says_what_pixels_it_expects(file: Path, options: Options, teacher_recipe) -> None:
    found = import_weights(file, teacher_recipe("name=auto"), options=options)
    assert found.stated == "135 training images"
    assert found.mean == RunFolder(found.run).recipe().model.normalize.mean
    settings = "model.normalize={mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25]}"
    found = import_weights(file, teacher_recipe("name=said", settings), options=options)
    assert (found.mean, found.std, found.stated) == ((0.5,) * 3, (0.25,) * 3, "the recipe")


def test_a_run_of_the_same_recipe_that_was_trained_is_another_row(
    imported, file: Path, options: Options, teacher_recipe, tmp_path: Path
) -> None:
    trained = finetune_teacher(teacher_recipe("name=theirs", "train.epochs=1"), options=options)
    rows = compare([imported.run, trained.run], latency=False).rows
    assert [row.seeds for row in rows] == [1, 1]


def test_a_network_that_guesses_is_warned_of(options: Options, teacher_recipe, tmp_path: Path) -> None:
    module = build_model(teacher_recipe().model, num_classes=10)
    torch.save(module.state_dict(), tmp_path / "untrained.pth")
    said: list[Note] = []
    import_weights(
        tmp_path / "untrained.pth", teacher_recipe("name=untrained"), options=replace(options, on_event=said.append)
    )
    warnings = [each.message for each in said if isinstance(each, Note) and each.level == "warning"]
    assert any("which chance does too" in each for each in warnings)


def test_without_validation_images_it_is_judged_on_training_images(file, options, teacher_recipe) -> None:
    made = import_weights(file, teacher_recipe("name=all", "data.val_fraction=0"), options=options)
    assert (made.split, made.images) == ("train", 150)
    assert RunFolder(made.run).result()["val_top1"] is None


def test_what_cannot_be_imported_leaves_nothing_behind(
    file: Path, options: Options, teacher_recipe, student_recipe, tmp_path: Path
) -> None:
    runs = replace(options, runs_dir=tmp_path / "runs")
    with pytest.raises(DataError, match="does not fit recipe tiny_teacher"):
        import_weights(file, teacher_recipe("model.width=16"), options=runs)
    with pytest.raises(UsageError, match="is a student's"):
        import_weights(file, student_recipe(), options=runs)
    assert not (tmp_path / "runs").exists()


def test_of_another_network_the_recipes_that_fit_are_named(options: Options, tmp_path: Path) -> None:
    recipe = load_recipe("resnet8x4_cifar100")
    state = build_model(recipe.model, num_classes=100).state_dict()
    names = {key: f"their{at}.{key.rpartition('.')[2]}" for at, key in enumerate(state)}
    torch.save({"model": {names[key]: value for key, value in state.items()}}, tmp_path / "theirs.pth")
    with pytest.raises(DataError, match="does not fit recipe quickstart_scratch") as refused:
        import_weights(tmp_path / "theirs.pth", "quickstart_scratch", options=options)
    assert refused.value.hint == "it fits --recipe resnet8x4_cifar100"
    torch.save({"a.weight": torch.zeros(3, 3), "b.weight": torch.zeros(2)}, tmp_path / "strange.pth")
    with pytest.raises(DataError) as refused:
        import_weights(tmp_path / "strange.pth", "quickstart_scratch", options=options)
    assert refused.value.hint.startswith("a recipe of the same network is wanted")


def test_the_command_and_its_document(file: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(
        "schema_version: 1\nname: tiny\nrole: teacher\ndata: {name: synthetic, limit: 150, test_limit: 60}\n"
        "model: {source: teachers, name: tiny}\noptim: {name: sgd, lr: 0.05}\ntrain: {epochs: 2, batch_size: 32}\n"
    )
    command = ["import", str(file), "--recipe", str(recipe), "--runs", str(tmp_path / "runs"), "--device", "cpu"]
    result = CliRunner().invoke(app, [*command, "--json", "-q"])
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["by_order"] is True
    assert RunFolder(Path(document["run"])).info.extra["imported_from"] == {
        "file": str(file), "sha256": sha256_file(file), "entry": "model"
    }  # fmt: skip
    table = CliRunner().invoke(app, command)
    assert table.exit_code == 0, table.stderr
    assert "tensors, in their order" in table.stdout
    missing = CliRunner().invoke(app, ["import", str(file)])
    assert missing.exit_code == 2
    assert "no recipe" in missing.stderr


OWN = """
from torch import nn
def make(num_classes):
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes)
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), *head)
"""


def test_of_a_network_of_ones_own_other_code_is_told(
    options: Options, teacher_recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISTILL_ALLOW_CODE", "1")
    (tmp_path / "mine.py").write_text(OWN)
    recipe = teacher_recipe("name=own", "train.epochs=1", "model={source: python, name: 'mine.py:make'}")
    state = build_model(recipe.model, num_classes=10, seed=3).state_dict()
    torch.save({f"theirs.{key}": value for key, value in state.items()}, tmp_path / "own.pth")
    first = import_weights("own.pth", recipe, options=options)
    torch.save({key: value + 0.01 for key, value in state.items()}, tmp_path / "near.pth")
    second = import_weights("near.pth", recipe, options=options)
    made = soup([first, second], options=options)
    for run in (first.run, made.run):
        assert RunFolder(run).info.extra["own_answers"]
    (tmp_path / "mine.py").write_text(OWN.replace("ReLU", "Tanh"))
    for name in [each for each in sys.modules if each.startswith("distill_own_")]:
        del sys.modules[name]  # as in a process of its own
    for run in (first.run, made.run):
        with pytest.raises(RunError, match="answers otherwise than when it was trained"):
            load_trained(RunFolder(run), device=CPU)


def test_of_timms_network_pixels_are_as_timm_says(options: Options, teacher_recipe, tmp_path: Path) -> None:
    torch.save(timm.create_model("mobilenetv3_small_050", num_classes=10).state_dict(), tmp_path / "timms.pth")
    model = "model={source: timm, name: mobilenetv3_small_050, input_size: 32}"
    found = import_weights(tmp_path / "timms.pth", teacher_recipe("name=timms", model), options=options)
    assert (found.stated, found.by_order) == ("timm", False)
    assert found.mean == (0.485, 0.456, 0.406)
    assert RunFolder(found.run).recipe().model.normalize.mean == found.mean
    assert RunFolder(found.run).recipe().model.weights == "none"


def test_answers_that_are_not_finite_are_refused(file: Path, options: Options, teacher_recipe, tmp_path: Path) -> None:
    content = torch.load(file, weights_only=True)
    for key, value in content["model"].items():
        if key.endswith("running_var"):
            value.fill_(-1.0)
    torch.save(content, tmp_path / "negative.pth")
    with pytest.raises(DataError, match="its answers are not finite"):
        import_weights(tmp_path / "negative.pth", teacher_recipe("name=negative"), options=options)
    assert RunFolder(options.runs_dir / "negative" / "001").status == "failed"


def test_it_is_no_baseline_unless_it_is_named(
    imported, options: Options, student_recipe, file: Path, teacher_recipe
) -> None:
    alone = import_weights(file, teacher_recipe("name=alone", "role=baseline"), options=options)
    taught = train_student(student_recipe("train.epochs=1", "name=judged"), teacher=imported, options=options)
    rows = compare([alone.run, taught.run], latency=False).rows
    assert {row.baseline for row in rows} == {None}
    rows = compare([alone.run, taught.run], latency=False, baseline="alone").rows
    assert {row.baseline for row in rows} == {str(alone.run)}
