"""For how long a teacher is asked."""

from __future__ import annotations

import pytest

from distill.pipeline.taught import taught_epochs, taught_views
from distill.recipe import load_recipe


@pytest.mark.parametrize(
    ("objective", "epochs"),
    [
        ("{kind: kd}", 9),
        ("{kind: kd, ce_weight: 1.0, until_epoch: 4}", 4),
        ("{kind: kd, ce_weight: 1.0, until_epoch: 40}", 9),
        ("{kind: kd, ce_weight: 1.0, until_epoch: 4, add: [{kind: mse, until_epoch: 6}]}", 6),
        ("{kind: kd, ce_weight: 1.0, until_epoch: 4, add: [{kind: mse}]}", 9),
        ("{kind: kd, ce_weight: 1.0, until_epoch: 4, add: [{kind: mse, mse_weight: 0}]}", 4),
        ("{kind: kd, ce_weight: 1.0, kd_weight: 0}", 1),
    ],
)
def test_until_the_last_term_that_weighs_anything_has_ended(objective: str, epochs: int) -> None:
    recipe = load_recipe("quickstart_student", [f"objective={objective}", "train.epochs=9"])
    assert taught_epochs(recipe) == epochs
    assert taught_views(recipe) == epochs  # each epoch shows a view of its own
    table = load_recipe("quickstart_student", [f"objective={objective}", "augment={crop_padding: 1, views: all}"])
    assert taught_views(table) == 9


def test_what_had_ended_before_asks_for_no_more_views_than_its_bank_has() -> None:
    """Trained on, pruned or quantisation-aware, by answers that a bank had for the epochs before."""
    recipe = load_recipe("quickstart_student", ["objective={kind: kd, ce_weight: 1.0, until_epoch: 1}"])
    before = taught_views(recipe)
    later = recipe.model_copy(update={"objective": recipe.objective.after_epochs(recipe.train.epochs)})
    assert taught_views(later) <= before == 1
