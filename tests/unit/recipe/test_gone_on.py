"""What an objective is to a run that is trained on: pruned, or quantisation-aware."""

from __future__ import annotations

from typing import Any

import pytest

from distill.recipe import load_recipe


def _objective(text: str) -> Any:
    return load_recipe("quickstart_student", [f"objective={text}"]).objective


def test_what_has_grown_is_whole_from_the_start() -> None:
    objective = _objective("{kind: dkd, ramp_epochs: 20, add: [{kind: rkd, ramp_epochs: 5}]}").after_epochs(20)
    assert [term.ramp_epochs for term in objective.terms] == [0, 0]
    assert [term.weighs for term in objective.terms] == [True, True]


def test_what_had_ended_has_no_weight_and_what_had_not_goes_on() -> None:
    objective = _objective("{kind: kd, until_epoch: 5, add: [{kind: rkd, until_epoch: 30}]}").after_epochs(20)
    assert (objective.kd_weight, objective.ce_weight) == (0.0, 0.1)
    assert [term.weighs for term in objective.terms] == [False, True]
    assert [term.until_epoch for term in objective.terms] == [None, None]


@pytest.mark.parametrize("text", ["{kind: supervised}", "{kind: kd, temperature: 2.0}"])
def test_what_neither_grows_nor_ends_is_as_it_was(text: str) -> None:
    assert _objective(text).after_epochs(3) == _objective(text)
