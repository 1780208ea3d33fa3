"""Who a teacher is stands in its folder: its network is loaded to be asked, and for nothing else."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

import distill.models.trained
from distill.errors import RunError, UsageError
from distill.files import json_sha256
from distill.fingerprint import architecture_sha256, state_sha256
from distill.models.trained import load_trained
from distill.pipeline import Options, RunResult, build_bank, finetune_teacher, train_student
from distill.recipe.model_specs import ResNetModel, TimmModel
from distill.runs import RunFolder
from distill.runs.checkpoints import best_checkpoint, load_checkpoint
from distill.teaching.bank import Bank
from distill.teaching.identity import Identity, identity_of, read_identity, read_statement

CPU = torch.device("cpu")


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """One entry for each trained network that is built from its run's folder."""
    real, seen = distill.models.trained.build_model, []
    monkeypatch.setattr(distill.models.trained, "build_model", lambda spec, **o: seen.append(spec) or real(spec, **o))
    return seen


@pytest.fixture
def teacher(teacher_run: RunResult, tmp_path: Path) -> RunFolder:
    """A teacher of the test's own."""
    copy = RunFolder(tmp_path / "runs" / "tiny_teacher" / "001")
    shutil.copytree(teacher_run.run, copy.path, symlinks=True, ignore=shutil.ignore_patterns("banks"))
    return copy


@pytest.fixture
def learn(teacher: RunFolder, student_recipe, tmp_path: Path) -> Callable[..., RunFolder]:
    """``learn("a.b=c", ...)`` trains the tiny student of that teacher for an epoch."""

    def run(*overrides: str) -> RunFolder:
        recipe = student_recipe("train.epochs=1", *overrides)
        options = Options(runs_dir=tmp_path / "students", threads=1)
        return RunFolder(train_student(recipe, teacher=str(teacher.path), options=options).run)

    return run


# How often it is loaded


@pytest.mark.parametrize("logits", ["auto", "bank"])
def test_where_a_bank_is_complete_no_teacher_is_loaded(learn, loads: list, logits: str) -> None:
    learn(f"teacher.logits={logits}")
    assert len(loads) == 1
    learn(f"teacher.logits={logits}", "train.seed=1")
    assert len(loads) == 1


def test_a_teacher_that_is_asked_live_is_loaded_once(learn, loads: list) -> None:
    learn("teacher.logits=live")
    assert len(loads) == 1


def test_auto_that_asks_live_loads_once(learn, loads: list) -> None:
    """A table of all crops and flips for one epoch is not worth it."""
    assert learn("augment.views=all").info.teacher["logits"] == "live"
    assert len(loads) == 1


def test_a_complete_bank_is_opened_once_and_built_again_by_nobody(
    learn, teacher: RunFolder, student_recipe, loads: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn()
    opened = []
    real = Bank._check_files
    monkeypatch.setattr(Bank, "_check_files", lambda bank: opened.append(bank.path) or real(bank))
    learn("train.seed=1")
    assert len(opened) == 1
    build_bank(student_recipe("train.epochs=1"), teacher=str(teacher.path), options=Options(threads=1))
    assert len(loads) == 1


def test_a_student_of_a_complete_bank_needs_no_weights(learn, teacher: RunFolder) -> None:
    """Its teacher's folder states who answered; the weights themselves may lie elsewhere."""
    first = learn()
    (best_checkpoint(teacher.checkpoints) / "model.safetensors").unlink()
    assert learn("train.seed=1").info.teacher["sha256"] == first.info.teacher["sha256"]


# What is stated


def test_a_finished_run_states_who_its_network_is(teacher: RunFolder) -> None:
    statement = read_statement(teacher)
    assert statement is not None
    state = load_checkpoint(best_checkpoint(teacher.checkpoints)).model_state
    assert statement.identity.weights == state_sha256(state)
    assert statement.identity == identity_of(load_trained(teacher, device=CPU)) == read_identity(teacher, device=CPU)
    assert statement.identity.classes == teacher.classes
    assert statement.identity.mean == teacher.recipe().model.normalize.mean


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.unlink(),
        lambda file: file.write_text("{"),
        lambda file: file.write_text(file.read_text().replace('"weights": "', '"weights": "0')),
        lambda file: file.unlink() or file.mkdir(),
    ],
    ids=["an older version's run", "damaged", "forged", "a folder"],
)
def test_what_is_not_stated_is_computed_once(teacher: RunFolder, damage) -> None:
    file = teacher.path / "identity.json"
    before = read_identity(teacher, device=CPU)
    damage(file)
    assert read_statement(teacher) is None
    assert read_identity(teacher, device=CPU) == before
    if not file.is_dir():
        assert read_statement(teacher).identity == before


def test_a_statement_is_of_the_checkpoint_that_is_there(teacher: RunFolder) -> None:
    best = best_checkpoint(teacher.checkpoints)
    meta = json.loads((best / "meta.json").read_text())
    meta["sha256"]["model.safetensors"] = "0" * 64
    meta["sha256"]["meta"] = json_sha256({key: value for key, value in meta.items() if key != "sha256"})
    (best / "meta.json").write_text(json.dumps(meta))
    assert read_statement(teacher) is None


def test_what_is_loaded_must_be_what_is_stated(teacher: RunFolder, learn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distill.models.trained, "state_sha256", lambda state: "f" * 64)
    with pytest.raises(RunError, match=r"states another network in identity\.json than it holds"):
        learn("teacher.logits=live")


# What it is made of


def _strides(path: Path, old: str, new: str) -> None:
    file = path / "recipe.yaml"
    assert file.read_text().count(old) == 1
    file.write_text(file.read_text().replace(old, new))


def test_another_network_of_the_same_tensors_is_another_teacher(teacher_recipe, student_recipe, tmp_path: Path) -> None:
    options = Options(runs_dir=tmp_path / "runs", threads=1)
    network = "model={source: students, name: resnet, blocks: [1, 1], channels: [4, 8], strides: [1, 2]}"
    teacher = RunFolder(finetune_teacher(teacher_recipe(network, "train.epochs=1"), options=options).run)
    recipe = student_recipe("train.epochs=1")
    first = RunFolder(train_student(recipe, options=options).run).info.teacher
    _strides(teacher.path, "strides: [1, 2]", "strides: [1, 1]")
    second = RunFolder(train_student(recipe, options=options).run).info.teacher
    assert first["sha256"] == second["sha256"]
    assert first["architecture"] != second["architecture"]
    assert first["bank"] != second["bank"]
    answers = [Bank.open(Path(each["bank"])).view(0) for each in (first, second)]
    assert (answers[0] != answers[1]).any()
    with pytest.raises(UsageError, match=r"does not fit this recipe: teacher\.architecture: "):
        build_bank(recipe, path=Path(first["bank"]), options=options)


def test_an_architecture_is_what_decides_the_answers_and_no_more() -> None:
    spec = ResNetModel(source="students", name="resnet", blocks=(1, 1), channels=(4, 8), strides=(1, 2), max_params=10)
    other = {
        "strides": (1, 1), "kernel": 5, "skip_kernel": 3, "skip": "pad", "conv_bias": True, "pool": 4, "input_size": 64,
    }  # fmt: skip
    digests = {architecture_sha256(spec.model_copy(update={key: value})) for key, value in other.items()}
    assert len(digests | {architecture_sha256(spec)}) == len(other) + 1
    assert architecture_sha256(spec.model_copy(update={"max_params": None})) == architecture_sha256(spec)
    timm = TimmModel(source="timm", name="resnet18")
    assert architecture_sha256(timm.model_copy(update={"weights": "none"})) == architecture_sha256(timm)
    assert architecture_sha256(timm.model_copy(update={"stem": "cifar"})) != architecture_sha256(timm)


def test_the_same_weights_are_the_same_teacher_downloaded_or_from_a_file(
    teacher_recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The download is timm's own way, led to a file of random weights."""
    file = tmp_path / "weights.safetensors"
    save_file(timm.create_model("test_vit", num_classes=1000).state_dict(), file)
    timm_backbone = importlib.import_module("teachers.timm_backbone")  # the package has a function of that name
    monkeypatch.setattr(timm_backbone, "weights_overlay", lambda name: {"file": str(file)})

    def identity(weights: str) -> Identity:
        network = f"model={{source: timm, name: test_vit, input_size: 32, weights: '{weights}'}}"
        recipe = teacher_recipe(network, "train.epochs=1", "data.limit=40")
        run = finetune_teacher(recipe, options=Options(runs_dir=tmp_path / "runs", threads=1)).run
        return read_identity(RunFolder(run), device=CPU)

    downloaded, from_file, random = identity("pretrained"), identity(str(file)), identity("none")
    assert downloaded == from_file
    assert (from_file.mean, from_file.std) == (timm.get_pretrained_cfg("test_vit").mean,) * 2 == ((0.5,) * 3,) * 2
    assert random.mean != from_file.mean
