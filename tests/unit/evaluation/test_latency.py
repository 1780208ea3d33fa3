"""Latency with a pretended clock: turns, budgets and percentiles by hand. Nothing here measures time."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from torch import nn

from distill.evaluation.latency import measure_latency
from distill.events import StageProgress
from distill.results.figures import Latency

CPU = torch.device("cpu")


class Machine:
    """A clock that moves only while a model runs, and a diary of who ran."""

    def __init__(self):
        self.now = 0.0
        self.diary: list[tuple[str, int]] = []
        self.seen: dict[str, torch.Tensor] = {}

    def clock(self) -> float:
        return self.now

    def model(self, name, seconds):
        """A model that takes ``seconds``: a number, or a function of batch size and how often it ran."""
        runs = Counter()

        def forward(images: torch.Tensor) -> torch.Tensor:
            assert torch.is_inference_mode_enabled()
            batch_size = len(images)
            self.now += seconds(batch_size, runs[batch_size]) if callable(seconds) else seconds
            runs[batch_size] += 1
            self.diary.append((name, batch_size))
            self.seen[name] = images
            return images

        return forward

    def measure(self, models, **options):
        shapes = {name: (3, 4, 4) for name in models}
        return measure_latency(models, shapes, device=CPU, clock=self.clock, **options)


@pytest.fixture
def machine():
    return Machine()


def test_models_take_turns_and_every_round_starts_with_the_next(machine):
    slow = 0.2  # above the limit for untimed passes, so that the diary holds one entry a turn
    models = {name: machine.model(name, slow) for name in "abc"}
    machine.measure(models, batch_sizes=(1, 2), rounds=4, warmup=1, seconds_per_model=100.0)

    warmup, rounds = machine.diary[:6], machine.diary[6:]
    assert warmup == [("a", 1), ("a", 2), ("b", 1), ("b", 2), ("c", 1), ("c", 2)]
    order = "".join(name for name, _ in rounds[::2])
    assert order == "abcbcacababc"
    assert [size for _, size in rounds] == [1, 2] * 12


def test_a_fast_model_gets_an_untimed_pass_before_each_timing(machine):
    # The pass before a timing takes 90 ms (cold caches), the timed one 4 ms.
    cold = {"a": machine.model("a", lambda size, run: 0.004 if run < 2 or run % 2 else 0.09)}
    result = machine.measure(cold, batch_sizes=(1,), rounds=6, warmup=2, seconds_per_model=100.0)
    assert len(machine.diary) == 2 + 2 * 6
    assert result["a"][1].median_ms == pytest.approx(4.0)
    assert result["a"][1].p90_ms == pytest.approx(4.0)


def test_percentiles_and_throughput_by_hand(machine):
    seconds = [0.2, 0.9, 0.4, 0.3, 0.5, 0.6, 0.7, 0.8, 1.0, 0.1, 1.1]  # 0.1 ... 1.1 in some order
    models = {"a": machine.model("a", lambda size, run: 0.2 if run == 0 else seconds[run - 1])}
    latency = machine.measure(models, batch_sizes=(32,), rounds=11, warmup=1, seconds_per_model=100.0)["a"][32]
    assert latency == Latency(
        batch_size=32,
        median_ms=pytest.approx(600.0),
        p90_ms=pytest.approx(1000.0),
        n=11,
    )
    assert latency.images_per_s == pytest.approx(32 / 0.6)


def test_batch_sizes_are_timed_apart(machine):
    models = {"a": machine.model("a", lambda size, run: 0.2 * size)}
    result = machine.measure(models, batch_sizes=(1, 8), rounds=5, warmup=1, seconds_per_model=100.0)["a"]
    assert list(result) == [1, 8]
    assert [latency.median_ms for latency in result.values()] == pytest.approx([200.0, 1600.0])
    assert [latency.images_per_s for latency in result.values()] == pytest.approx([5.0, 5.0])


def test_a_slow_model_has_fewer_turns_spread_over_all_rounds(machine):
    models = {"fast": machine.model("fast", 0.125), "slow": machine.model("slow", 0.5)}
    result = machine.measure(models, batch_sizes=(1,), rounds=40, warmup=1, seconds_per_model=5.0)
    assert {name: row[1].n for name, row in result.items()} == {"fast": 40, "slow": 10}
    fast_before = [
        sum(name == "fast" for name, _ in machine.diary[2:position])
        for position, (name, _) in enumerate(machine.diary)
        if name == "slow" and position > 1
    ]
    gaps = {later - earlier for earlier, later in itertools.pairwise(fast_before)}
    assert gaps <= {3, 4, 5}  # every fourth round, give or take the rotation
    assert fast_before[-1] >= 39


def test_a_very_slow_model_is_timed_five_times_after_one_pass(machine):
    models = {"a": machine.model("a", 60.0)}
    result = machine.measure(models, batch_sizes=(1,), rounds=50, warmup=10, seconds_per_model=4.0)
    assert result["a"][1].n == 5
    assert len(machine.diary) == 6


def test_a_model_that_turns_slow_after_its_warm_up_stops_early(machine):
    models = {"a": machine.model("a", lambda size, run: 0.001 if run < 3 else 1.0)}
    result = machine.measure(models, batch_sizes=(1,), rounds=50, warmup=3, seconds_per_model=4.0)
    assert result["a"][1].n == 5  # each turn takes 2 s; the share is gone after the second, five are the least


def test_the_share_covers_all_batch_sizes(machine):
    models = {"a": machine.model("a", 0.25)}
    result = machine.measure(models, batch_sizes=(1, 32), rounds=50, warmup=1, seconds_per_model=4.0)
    assert {size: latency.n for size, latency in result["a"].items()} == {1: 8, 32: 8}


def test_few_rounds_bound_even_a_slow_model(machine):
    models = {"a": machine.model("a", 60.0)}
    assert machine.measure(models, batch_sizes=(1,), rounds=2, warmup=1)["a"][1].n == 2


def test_a_clock_too_coarse_to_see_a_model(machine):
    latency = machine.measure({"a": machine.model("a", 0.0)}, batch_sizes=(1,), rounds=3)["a"][1]
    assert (latency.median_ms, latency.n, latency.images_per_s) == (0.0, 3, float("inf"))


def test_images_are_random_float32_of_the_models_own_shape(machine):
    models = {"small": machine.model("small", 0.2), "large": machine.model("large", 0.2)}
    shapes = {"small": (3, 4, 4), "large": (3, 8, 8)}
    measure_latency(models, shapes, device=CPU, batch_sizes=(2,), rounds=1, clock=machine.clock)
    assert {name: tuple(images.shape) for name, images in machine.seen.items()} == {
        "small": (2, 3, 4, 4),
        "large": (2, 3, 8, 8),
    }
    large = machine.seen["large"]
    assert large.dtype == torch.float32
    assert len(large.unique()) == large.numel()


@pytest.mark.parametrize("channels_last", [True, False])
def test_images_come_in_the_models_memory_format(channels_last):
    formats = []
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3)).eval()
    model.register_forward_pre_hook(lambda module, args: formats.append(args[0].is_contiguous()))
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    measure_latency({"a": model}, {"a": (3, 6, 6)}, device=CPU, batch_sizes=(2,), rounds=1, warmup=1)
    assert set(formats) == {not channels_last}


def test_progress_is_told_after_each_round(machine):
    told = []
    models = {"a": machine.model("a", 0.2)}
    machine.measure(models, batch_sizes=(1,), rounds=3, tell=told.append)
    assert told == [StageProgress("timing", done, 3) for done in (1, 2, 3)]


def test_refuses_to_time_nothing(machine):
    with pytest.raises(ValueError, match="no input shape for: b"):
        measure_latency({"b": nn.Identity()}, {"a": (3, 4, 4)}, device=CPU)
    for options in ({"rounds": 0}, {"warmup": 0}, {"batch_sizes": ()}, {"batch_sizes": (0,)}):
        with pytest.raises(ValueError, match="nothing to time"):
            machine.measure({"a": machine.model("a", 0.2)}, **options)
    with pytest.raises(ValueError, match="nothing to time"):
        machine.measure({})
