"""Schedules of a run that is trained on for fewer epochs."""

from __future__ import annotations

import json

import pytest
from pydantic import TypeAdapter

from distill.recipe.optimization import ScheduleSpec
from distill.train.schedule import factor_at


def _schedule(**fields: object) -> ScheduleSpec:
    return TypeAdapter(ScheduleSpec).validate_json(json.dumps(fields))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"kind": "cosine", "warmup_epochs": 5}, {"warmup_epochs": 0.5}),
        ({"kind": "constant"}, {"warmup_epochs": 0.0}),
        ({"kind": "multistep", "milestones": [100, 150]}, {"milestones": (10, 15)}),
        ({"kind": "warm_restarts", "first_cycle_epochs": 40}, {"first_cycle_epochs": 4}),
        ({"kind": "warm_restarts", "first_cycle_epochs": 2}, {"first_cycle_epochs": 1}),
        ({"kind": "one_cycle"}, {"warmup_fraction": 0.3}),
        ({"kind": "triangular"}, {"peak": 0.23}),
        ({"kind": "plateau", "patience": 10, "warmup_epochs": 10}, {"patience": 1, "warmup_epochs": 1.0}),
    ],
)
def test_what_is_counted_in_epochs_follows_the_run(fields: dict[str, object], expected: dict[str, object]) -> None:
    schedule = _schedule(**fields).stretched(0.1)
    assert {name: getattr(schedule, name) for name in expected} == expected


def test_an_exponential_ends_where_it_did() -> None:
    schedule, steps = _schedule(kind="exponential", gamma=0.9), 7
    whole = factor_at(schedule, base_lr=1.0, steps=200 * steps, steps_per_epoch=steps)(200 * steps)
    part = factor_at(schedule.stretched(0.1), base_lr=1.0, steps=20 * steps, steps_per_epoch=steps)(20 * steps)
    assert part == pytest.approx(whole)
