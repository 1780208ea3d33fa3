"""Learning rates against torch's own schedulers and against hand values."""

from __future__ import annotations

import pytest
import torch
from pydantic import TypeAdapter
from torch.optim import lr_scheduler

from distill.recipe.optimization import (
    Constant,
    Cosine,
    Exponential,
    MultiStep,
    OneCycle,
    OptimSpec,
    Plateau,
    Triangular,
    WarmRestarts,
)
from distill.train.optim import OPTIMIZERS
from distill.train.schedule import build_schedule, has_momentum, rates_by_step

STEPS, EPOCHS, LR = 4, 12, 0.4


def _optimizer(lrs: tuple[float, ...] = (LR,)) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in lrs], momentum=0.9)


def _ours(spec, *, group: int = 0, lrs: tuple[float, ...] = (LR,)) -> list[float]:
    optimizer = _optimizer(lrs)
    schedule = build_schedule(spec, optimizer, epochs=EPOCHS, steps_per_epoch=STEPS)
    rates = []
    for _ in range(EPOCHS * STEPS):
        rates.append(optimizer.param_groups[group]["lr"])
        optimizer.step()
        schedule.step_done()
    return rates


def _torchs(build) -> list[float]:
    optimizer = _optimizer()
    scheduler = build(optimizer)
    rates = []
    for _ in range(EPOCHS * STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("spec", "build"),
    [
        (Constant(), lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
        (
            MultiStep(kind="multistep", milestones=(3, 7), gamma=0.2),
            lambda o: lr_scheduler.MultiStepLR(o, [3 * STEPS, 7 * STEPS], gamma=0.2),
        ),
        (
            Exponential(kind="exponential", gamma=0.9),
            lambda o: lr_scheduler.StepLR(o, STEPS, gamma=0.9),
        ),
        (
            Cosine(kind="cosine", min_lr=0.01),
            lambda o: lr_scheduler.CosineAnnealingLR(o, EPOCHS * STEPS, eta_min=0.01),
        ),
        (
            WarmRestarts(kind="warm_restarts", first_cycle_epochs=2, cycle_factor=2, min_lr=0.01),
            lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2 * STEPS, 2, eta_min=0.01),
        ),
        (
            OneCycle(kind="one_cycle"),
            lambda o: lr_scheduler.OneCycleLR(o, LR, total_steps=EPOCHS * STEPS + 1),
        ),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_rates_are_those_of_torch(spec, build) -> None:
    assert _ours(spec) == pytest.approx(_torchs(build), rel=1e-9, abs=1e-12)


def _momenta(spec: OneCycle, optimizer: torch.optim.Optimizer) -> list[float]:
    schedule = build_schedule(spec, optimizer, epochs=EPOCHS, steps_per_epoch=STEPS)
    found = []
    for _ in range(EPOCHS * STEPS):
        group = optimizer.param_groups[0]
        found.append(group["momentum"] if "momentum" in group else group["betas"][0])
        optimizer.step()
        schedule.step_done()
    return found


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_one_cycle_leaves_the_recipes_momentum_alone(name: str) -> None:
    options = {"momentum": 0.7} if name == "SGD" else {"betas": (0.7, 0.9)}
    optimizer = getattr(torch.optim, name)([torch.nn.Parameter(torch.zeros(1))], lr=LR, **options)
    assert set(_momenta(OneCycle(kind="one_cycle"), optimizer)) == {0.7}


def test_momentum_cycles_through_the_range_of_the_recipe_where_asked() -> None:
    spec = OneCycle(kind="one_cycle", warmup_fraction=0.5, cycle_momentum=True, base_momentum=0.6, max_momentum=0.8)
    found = _momenta(spec, _optimizer())
    assert found[0] == 0.8
    assert found[-1] == pytest.approx(0.8, abs=0.01)
    assert min(found) == pytest.approx(0.6, abs=0.01)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_which_optimisers_have_a_momentum_to_cycle(name: str) -> None:
    optimizer = OPTIMIZERS[name]([torch.nn.Parameter(torch.zeros(1))], lr=LR)
    try:
        lr_scheduler.OneCycleLR(optimizer, LR, total_steps=3, cycle_momentum=True)
        cycles = True
    except ValueError:
        cycles = False
    assert has_momentum(TypeAdapter(OptimSpec).validate_python({"name": name})) == cycles


def test_warm_up_rises_by_equal_steps_to_the_base_rate() -> None:
    rates = _ours(Constant(warmup_epochs=2))
    assert rates[:8] == pytest.approx([LR * k / 8 for k in range(1, 9)])
    assert set(rates[8:]) == {LR}


def test_a_warm_up_longer_than_the_run_is_shortened_to_it() -> None:
    assert _ours(Constant(warmup_epochs=100))[-1] == pytest.approx(LR)


def test_groups_keep_their_proportion() -> None:
    slow = _ours(Cosine(kind="cosine", warmup_epochs=1), group=1, lrs=(LR, LR / 10))
    fast = _ours(Cosine(kind="cosine", warmup_epochs=1), group=0, lrs=(LR, LR / 10))
    assert slow == pytest.approx([rate / 10 for rate in fast])


def test_plateau_cuts_after_patience_epochs_without_improvement() -> None:
    optimizer = _optimizer()
    spec = Plateau(kind="plateau", factor=0.5, patience=2)
    schedule = build_schedule(spec, optimizer, epochs=10, steps_per_epoch=1)
    rates = []
    for loss in (1.0, 0.9, 0.9, 0.9, 0.9, 0.9):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step_done()
        schedule.epoch_done({"val_loss": loss, "train_loss": 0.0})
    rates.append(optimizer.param_groups[0]["lr"])
    # torch counts the epochs that did not improve: the third of them is over the patience of two
    assert rates == [LR] * 5 + [LR / 2] * 2


@pytest.mark.parametrize("cut", [1, 5, 17])
@pytest.mark.parametrize(
    "spec",
    [
        OneCycle(kind="one_cycle"),
        Cosine(kind="cosine", warmup_epochs=1),
        Plateau(kind="plateau", patience=1, warmup_epochs=1),
    ],
    ids=lambda spec: spec.kind,
)
def test_a_restored_schedule_goes_on_with_the_same_rates(spec, cut: int) -> None:
    def rates(schedule, optimizer, steps: int) -> list[float]:
        found = []
        for step in range(steps):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step_done()
            if step % STEPS == STEPS - 1:
                schedule.epoch_done({"val_loss": 1.0, "train_loss": 1.0})
        return found

    optimizer = _optimizer()
    schedule = build_schedule(spec, optimizer, epochs=EPOCHS, steps_per_epoch=STEPS)
    rates(schedule, optimizer, cut * STEPS // STEPS)
    again = _optimizer()
    restored = build_schedule(spec, again, epochs=EPOCHS, steps_per_epoch=STEPS)
    restored.load_state_dict(schedule.state_dict())
    again.load_state_dict(optimizer.state_dict())
    assert rates(restored, again, 12) == rates(schedule, optimizer, 12)


@pytest.mark.parametrize(
    "spec",
    [
        OneCycle(kind="one_cycle"),
        Cosine(kind="cosine", warmup_epochs=2),
        MultiStep(kind="multistep", milestones=(7,)),
        Triangular(kind="triangular"),
        Plateau(kind="plateau", warmup_epochs=8),
    ],
    ids=lambda spec: spec.kind,
)
def test_a_run_that_goes_on_with_other_steps_an_epoch_has_the_rates_of_its_epochs(spec) -> None:
    """Fewer processes keep a last batch that was too small for more of them."""
    optimizer = _optimizer()
    schedule = build_schedule(spec, optimizer, epochs=EPOCHS, steps_per_epoch=STEPS)
    for _ in range(5 * STEPS):
        optimizer.step()
        schedule.step_done()
    again = _optimizer()
    restored = build_schedule(spec, again, epochs=EPOCHS, steps_per_epoch=STEPS + 1)
    again.load_state_dict(optimizer.state_dict())
    restored.load_state_dict(schedule.state_dict())
    restored.go_to(5 * (STEPS + 1))
    rates = []
    for _ in range(7 * (STEPS + 1)):
        again.step()
        restored.step_done()
        rates.append(restored.last_lr)
    whole = rates_by_step(spec, lr=LR, steps_per_epoch=STEPS + 1, epochs=EPOCHS, metrics=[{"val_loss": 1.0}] * EPOCHS)
    assert rates == pytest.approx(whole[5 * (STEPS + 1) :])


@pytest.mark.parametrize("share", [0.0, 0.05, 0.1])
def test_one_cycle_whose_rise_is_no_longer_than_its_first_step_begins_at_the_peak(share: float) -> None:
    spec = OneCycle(kind="one_cycle", warmup_fraction=share)
    rates = rates_by_step(spec, lr=LR, steps_per_epoch=9, epochs=1, metrics=[{}])
    assert rates[0] == pytest.approx(LR)
    assert sorted(rates, reverse=True) == rates


def test_rates_by_step_are_those_a_run_learns_at() -> None:
    spec = OneCycle(kind="one_cycle")
    metrics = [{"train_loss": 1.0}] * EPOCHS
    assert rates_by_step(spec, lr=LR, steps_per_epoch=STEPS, epochs=EPOCHS, metrics=metrics) == pytest.approx(
        _ours(spec)
    )


def test_last_lr_is_the_rate_of_the_step_that_is_done() -> None:
    optimizer = _optimizer()
    schedule = build_schedule(Constant(warmup_epochs=1), optimizer, epochs=EPOCHS, steps_per_epoch=STEPS)
    optimizer.step()
    schedule.step_done()
    assert (schedule.last_lr, optimizer.param_groups[0]["lr"]) == pytest.approx((LR / 4, LR / 2))


def test_a_triangle_by_hand() -> None:
    spec = Triangular(kind="triangular", start=0.2, peak=0.5, end=0.1)
    optimizer = _optimizer((1.0,))
    schedule = build_schedule(spec, optimizer, epochs=1, steps_per_epoch=5)
    rates = []
    for _ in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step_done()
    assert rates == pytest.approx([0.2, 0.6, 1.0, 0.55, 0.1])


def test_a_group_that_learns_faster_is_not_what_lr_tells() -> None:
    optimizer = _optimizer((LR, 64 * LR))
    optimizer.param_groups[1]["lr_scale"] = 64.0
    schedule = build_schedule(Cosine(kind="cosine", min_lr=LR / 2), optimizer, epochs=1, steps_per_epoch=4)
    for _ in range(4):
        optimizer.step()
        schedule.step_done()
    assert schedule.last_lr == pytest.approx(
        rates_by_step(Cosine(kind="cosine", min_lr=LR / 2), lr=LR, steps_per_epoch=4, epochs=1, metrics=[{}])[-1]
    )
    assert optimizer.param_groups[1]["lr"] == pytest.approx(64 * LR / 2)
