"""Classes of unlike size, as one's own data has them: weighed, split, watched and judged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from distill.cli import app
from distill.data.splits import load_splits
from distill.errors import RecipeError
from distill.pipeline import Options, evaluate_run, finetune_teacher
from distill.recipe import Recipe, parse_recipe
from distill.runs import RunFolder

COUNTS = {"common": (60, 30), "rare": (12, 6), "rarest": (2, 2)}  # images to train on, and to test on

RECIPE = """
schema_version: 1
name: unlike
role: baseline
data: {name: folder, root: ROOT, image_size: 8, val_fraction: 0.1}
augment: {crop_padding: 0, hflip: 0.0}
model: {source: students, name: tiny, input_size: 32}
optim: {name: sgd, lr: 0.05}
train: {epochs: 2, batch_size: 20}
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise of another brightness in each class."""
    root, generator = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for place, (name, counts) in enumerate(COUNTS.items()):
        for split, count in zip(("train", "test"), counts, strict=True):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(60 * place, 60 * place + 100, (8, 8, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root


@pytest.fixture
def recipe(pictures: Path) -> Callable[..., Recipe]:
    return lambda *changes: parse_recipe(RECIPE.replace("ROOT", str(pictures)), source="test", overrides=changes)


def test_the_split_keeps_rare_classes_on_both_sides(recipe) -> None:
    splits = load_splits(recipe().data)
    assert splits.dataset.classes == tuple(COUNTS)
    assert (np.bincount(splits.val.labels).tolist(), np.bincount(splits.train.labels).tolist()) == (
        [6, 1, 1],
        [54, 11, 1],
    )


def _losses(recipe: Recipe, runs: Path) -> list[float]:
    run = finetune_teacher(recipe, options=Options(runs_dir=runs, threads=1)).run
    return [line["train_ce"] for line in RunFolder(run).metrics()]


def test_weights_reach_the_training(recipe, tmp_path: Path) -> None:
    plain = _losses(recipe(), tmp_path / "a")
    assert _losses(recipe("objective.class_weights=[1,1,1]"), tmp_path / "b") == pytest.approx(plain, rel=1e-5)
    balanced = _losses(recipe("objective.class_weights=balanced"), tmp_path / "c")
    counts = np.array([54, 11, 1])
    given = (66 / (3 * counts)).tolist()
    assert _losses(recipe(f"objective.class_weights={given}"), tmp_path / "d") == pytest.approx(balanced, rel=1e-4)
    assert abs(balanced[0] - plain[0]) > 0.01


def test_too_few_weights_are_refused_before_there_is_a_folder(recipe, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="2 numbers, and the data has 3 classes"):
        finetune_teacher(recipe("objective.class_weights=[1,2]"), options=Options(runs_dir=tmp_path, threads=1))
    assert not list(tmp_path.glob("unlike/*"))


MONITORS = ("val_top1", "val_loss", "val_balanced_accuracy", "val_macro_f1")


@pytest.mark.parametrize("monitor", [*MONITORS[2:], "last"])
def test_averages_over_classes_pick_the_checkpoint(recipe, tmp_path: Path, monitor: str) -> None:
    changed = recipe(f"train.monitor={monitor}", "train.epochs=6", "objective.class_weights=balanced")
    run = RunFolder(finetune_teacher(changed, options=Options(runs_dir=tmp_path, threads=1)).run)
    lines = run.metrics()
    assert all(set(MONITORS) <= set(line) for line in lines)
    values = [line["epoch" if monitor == "last" else monitor] for line in lines]
    assert run.result("best_epoch")["best_epoch"] == 1 + values.index(max(values))
    # the shipped epoch's, as evaluate works it out from the checkpoint
    found = evaluate_run(run.path, split="val", plots=False, options=Options(threads=1))
    best = lines[values.index(max(values))]
    assert found.result.balanced_accuracy == pytest.approx(best["val_balanced_accuracy"], abs=1e-6)
    assert found.result.macro_f1 == pytest.approx(best["val_macro_f1"], abs=1e-6)


def test_a_plateau_watches_them_and_a_run_without_validation_its_training(recipe, tmp_path: Path) -> None:
    plateau = "schedule={kind: plateau, monitor: val_macro_f1, patience: 1}"
    run = finetune_teacher(recipe(plateau), options=Options(runs_dir=tmp_path, threads=1)).run
    assert RunFolder(run).status == "finished"
    bare = recipe(plateau, "data.val_fraction=0")
    assert RunFolder(finetune_teacher(bare, options=Options(runs_dir=tmp_path, threads=1)).run).status == "finished"


def test_tables_gates_and_notes(recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    run = finetune_teacher(recipe(), options=Options(runs_dir=tmp_path, threads=1)).run
    cli = CliRunner()
    result = cli.invoke(app, ["evaluate", str(run), "--json", "-q", "--threads", "1"])
    document = json.loads(result.stdout)
    assert document["notes"] == [
        "2 of 3 classes have fewer than 20 test images (rarest 2, rare 6): too few to judge them by, "
        "and balanced accuracy and macro F1 count each as much as a large one"
    ]
    told = cli.invoke(app, ["evaluate", str(run), "--no-plots", "--threads", "1"]).stdout
    assert "2 of 3 classes have fewer than 20 test images" in " ".join(told.split())

    asked = ["compare", str(run), "--no-latency", "--threads", "1"]
    (row,) = json.loads(cli.invoke(app, [*asked, "--json", "-q"]).stdout)["rows"]
    assert row["test_macro_f1"] == pytest.approx(document["macro_f1"])
    assert row["test_balanced_accuracy"] == pytest.approx(document["balanced_accuracy"])
    assert abs(row["test_top1"] - row["test_macro_f1"]) > 0.005  # else the test is about nothing
    shown = cli.invoke(app, [*asked, "-q"]).stdout
    for words in ("macro F1", "balanced", f"{100 * row['test_macro_f1']:.2f}", "rarest 2"):
        assert words in shown
    gate = f"unlike.test_macro_f1 >= {row['test_macro_f1'] - 0.01:.6f}"
    assert cli.invoke(app, [*asked, "--require", gate]).exit_code == 0
    assert cli.invoke(app, [*asked, "--require", "unlike.test_balanced_accuracy > 1"]).exit_code == 3
