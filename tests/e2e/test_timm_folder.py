"""timm's own folders: read as a teacher, written of a run, opened by timm itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from timm.models import save_for_hf
from typer.testing import CliRunner

from distill import Options, export, finetune_teacher
from distill.cli import app
from distill.data.synthetic import load_synthetic
from distill.models.build import build_model
from distill.models.timm_folder import resolve_timm
from distill.models.trained import load_trained
from distill.recipe import Recipe, parse_recipe
from distill.recipe.model_specs import TimmModel
from distill.runs import RunFolder

RECIPE = """
schema_version: 1
name: own_resnet
role: teacher
data: {name: synthetic, limit: 150, test_limit: 60}
model: {source: timm, name: resnet10t, weights: none, input_size: 32}
optim: {name: sgd, lr: 1e-6}
train: {epochs: 1, batch_size: 50}
"""
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def _recipe(*changes: str) -> Recipe:
    return parse_recipe(RECIPE, source="test", overrides=changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As timm writes it, of a network of its own with ten classes."""
    path = tmp_path_factory.mktemp("timm") / "resnet"
    torch.manual_seed(3)
    module = timm.create_model("resnet10t", num_classes=10)
    save_for_hf(module, str(path), safe_serialization=True, data_config={"mean": MEAN, "std": STD})
    return path


def _distill(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_a_folder_of_timm_s_is_a_teacher_as_timm_has_it(folder: Path, tmp_path: Path) -> None:
    spec = TimmModel(source="timm", name=f"local-dir:{folder}", input_size=64)
    ours = build_model(spec, num_classes=10).eval()
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours(images), theirs(images))  # the classifier too: its classes are as many

    recipe = _recipe(f"model.name='local-dir:{folder}'", "model.weights=pretrained")
    run = RunFolder(finetune_teacher(recipe, options=Options(runs_dir=tmp_path, threads=1)).run)
    stated = run.recipe().model
    assert (stated.name, stated.weights) == ("resnet10t", str(folder / "model.safetensors"))
    assert (stated.normalize.mean, stated.normalize.std) == (MEAN, STD)
    trained = load_trained(run, device=torch.device("cpu"))
    torch.testing.assert_close(trained.module.fc.weight, theirs.get_classifier().weight, atol=1e-3, rtol=0)


def test_a_run_is_exported_as_timm_opens_it_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = Options(threads=1)
    run = finetune_teacher(_recipe(), options=options)
    made = export(run, to="timm", options=options)
    assert {path.name for path in made.file.iterdir()} == {"config.json", "model.safetensors"}
    trained = load_trained(RunFolder(run.run), device=torch.device("cpu"))
    assert json.loads((made.file / "config.json").read_text())["label_names"] == list(trained.classes)

    theirs = timm.create_model(f"local-dir:{made.file}", pretrained=True).eval()
    config = timm.data.resolve_data_config({}, model=theirs)
    assert config["input_size"] == (3, 32, 32)
    pixels = load_synthetic(trained.recipe.data).test.take(slice(0, 8))
    scale = torch.tensor([config["mean"], config["std"]]).view(2, 1, 3, 1, 1)  # as ToTensor and Normalize do it
    images = (torch.from_numpy(pixels).float() / 255 - scale[0]) / scale[1]
    with torch.no_grad():
        torch.testing.assert_close(theirs(images), trained(torch.from_numpy(pixels)), atol=1e-4, rtol=1e-4)

    spec = TimmModel(source="timm", name=f"local-dir:{made.file}", input_size=32)
    torch.testing.assert_close(dict(build_model(spec, num_classes=10).state_dict()), dict(trained.module.state_dict()))
    stated = resolve_timm(spec).normalize
    assert (stated.mean, stated.std) == (trained.normalize.mean, trained.normalize.std)
    assert _distill("export", run.run, "--to", "timm", "-q")[0] == 2  # it is there
    assert _distill("export", run.run, "--to", "timm", "--overwrite", "-q")[0] == 0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (("model={source: teachers, name: tiny}",), "is no network of timm's"),
        (("model.stem=cifar", "model.name=resnet18"), "is not as timm builds it: stem: cifar"),
    ],
)
def test_what_timm_cannot_build_is_one_line(
    changes: tuple[str, ...], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = finetune_teacher(_recipe(*changes), options=Options(threads=1))
    exit_code, _, stderr = _distill("export", run.run, "--to", "timm", "-q")
    assert (exit_code, told in stderr) == (2, True), stderr
    assert not (tmp_path / "exports").exists()


def test_what_is_missing_is_one_line(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.yaml").write_text(RECIPE)
    (empty := tmp_path / "empty").mkdir()
    (odd := tmp_path / "odd").mkdir()
    config = json.loads((folder / "config.json").read_text())
    (odd / "config.json").write_text(json.dumps(config | {"model_args": {"act_layer": "gelu"}}))
    (odd / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    (damaged := tmp_path / "damaged").mkdir()
    (damaged / "config.json").write_text('{"architecture":\n\n')
    (none := tmp_path / "none").mkdir()
    (none / "config.json").write_text('{"architecture": 3}')
    for name, exit_code, told in (
        ("hf-hub:timm/resnet10t.c3_in1k", 4, "hf-hub:timm/resnet10t.c3_in1k could not be fetched"),
        (f"local-dir:{empty}", 4, "has no config.json"),
        (f"local-dir:{damaged}", 1, f"error: {damaged / 'config.json'}: damaged: not JSON (Expecting value: line 3"),
        (f"local-dir:{none}", 1, "names no architecture"),
        (f"local-dir:{odd}", 2, "is built with act_layer, which a recipe does not have"),
    ):
        changes = ("--set", f"model.name='{name}'", "--set", "model.weights=pretrained")
        found, _, stderr = _distill("teacher-finetune", "--recipe", "own.yaml", "-q", *changes)
        assert (found, told in stderr) == (exit_code, True), stderr
        assert "Traceback" not in stderr
        assert not (tmp_path / "runs").exists()
