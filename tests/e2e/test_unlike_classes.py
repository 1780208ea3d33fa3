"""Classes of unlike size, as one's own data has them: weighed, split, watched and judged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.data.splits import load_splits
from distill.errors import RecipeError
from distill.pipeline import Options, finetune_teacher
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
