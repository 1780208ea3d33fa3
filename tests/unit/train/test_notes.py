"""What a run says of settings that it cannot follow."""

from __future__ import annotations

import numpy as np
import pytest
from lightning_fabric import Fabric

from distill.data.batches import Loader
from distill.data.images import Split
from distill.events import Note
from distill.models import Normalize, build_model
from distill.objectives import build_objective
from distill.recipe import load_recipe, parse_recipe
from distill.teaching.objective import ObjectiveWithTeacher
from distill.train.cautions import cautions
from distill.train.loop import Job, fit

RECIPE = """
schema_version: 1
name: noted
role: baseline
model: {source: students, name: tiny, input_size: 8}
data: {name: folder, image_size: 8}
train: {epochs: 2, batch_size: 8, precision: fp32, channels_last: false, compile: false}
"""


def warnings(*overrides: str, validates: bool) -> list[str]:
    recipe = parse_recipe(RECIPE, source="test", overrides=list(overrides))
    pixels = np.random.default_rng(0).integers(0, 256, (16, 3, 8, 8), dtype=np.uint8)
    loader = Loader(Split(pixels, np.arange(16) % 2), device="cpu")
    job = Job(
        run="run",
        recipe=recipe,
        module=build_model(recipe.model, num_classes=2),
        normalize=Normalize((0.5,) * 3, (0.2,) * 3, 8),
        objective=ObjectiveWithTeacher(build_objective(recipe.objective)),
        train=loader,
        val=loader if validates else None,
        checkpoints=None,
    )
    events = list(fit(job, Fabric(accelerator="cpu", devices=1)))
    return [each.message for each in events if isinstance(each, Note) and each.level == "warning"]


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("train.early_stopping={patience: 1}", "does not stop before epoch 2"),
        ("schedule={kind: plateau}", "watches val_loss, and there are no images to validate on: it watches train_loss"),
        (
            "schedule={kind: plateau, monitor: val_macro_f1}",
            "watches val_macro_f1, and there are no images to validate on: it watches train_top1",
        ),
    ],
)
def test_what_watches_validation_says_where_there_is_none(setting: str, told: str) -> None:
    (message,) = warnings(setting, validates=False)
    assert told in message
    assert warnings(setting, validates=True) == []


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("schedule={kind: multistep, milestones: [1, 2, 9]}", "the run ends at epoch 2, and never comes to 2, 9"),
        ("schedule={kind: constant, warmup_epochs: 3}", "warmup_epochs 3 is longer than the run: shortened to 2"),
        ("schedule={kind: multistep, milestones: [1]}", None),
        ("schedule={kind: constant, warmup_epochs: 2}", "warmup_epochs 2 is the whole run: it ends at its highest"),
        ("schedule={kind: constant, warmup_epochs: 1}", None),
    ],
)
def test_what_lies_behind_the_last_epoch_is_told(setting: str, told: str | None) -> None:
    messages = warnings(setting, validates=True)
    assert len(messages) == (told is not None)
    assert all(told in message for message in messages)


@pytest.mark.parametrize(("epochs", "told"), [(5, ["its weights end at 25% of what the recipe says"]), (20, [])])
def test_an_objective_that_a_short_run_never_turns_up_whole_says_so(epochs: int, told: list[str]) -> None:
    """DKD's weights grow over 20 epochs, unless its recipe says otherwise."""
    recipe = load_recipe("quickstart_student", ["objective={kind: dkd, add: [{kind: mse}]}", f"train.epochs={epochs}"])
    assert [line.partition(": ")[2].partition(": ")[2] for line in cautions(recipe, validates=True)] == told
