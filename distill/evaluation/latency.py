"""How long models take for a batch, timed side by side.

All models are timed in turn, round by round, and each round starts with the next model: a machine that slows down, or
shares its cores for a while, then hurts all of them alike. A slow model has fewer turns, spread over all rounds.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from distill.devices import fast_kernels, synchronize
from distill.devices.kit_script import P99_LEAST
from distill.events import StageProgress, Tell, silent
from distill.results.figures import Latency
from distill.team.watch import beat

__all__ = ["measure_latency", "time_one_image"]

MIN_TIMINGS = 5
SETTLE_BELOW_S = 0.1
_STAGE = "timing"


@dataclass
class _Cell:
    """One model at one batch size, and its turns so far."""

    name: str
    batch_size: int
    run: Callable[[], None]
    share_s: float
    rounds: int
    turns: int = 0
    settles: bool = True
    spent_s: float = 0.0
    seconds: list[float] = field(default_factory=list)

    def is_due(self, round_index: int) -> bool:
        """Whether this round holds one of the turns, which lie evenly over the rounds."""
        if self.spent_s >= self.share_s and len(self.seconds) >= min(MIN_TIMINGS, self.turns):
            return False  # slower than in its warm-up
        return (round_index + 1) * self.turns // self.rounds > round_index * self.turns // self.rounds


def measure_latency(
    models: Mapping[str, Callable[[Tensor], Tensor]],
    input_shapes: Mapping[str, Sequence[int]],
    *,
    device: torch.device,
    batch_sizes: Sequence[int] | None = None,
    rounds: int = 50,
    warmup: int = 3,
    seconds_per_model: float = 4.0,
    clock: Callable[[], float] = time.perf_counter,
    tell: Tell = silent,
) -> dict[str, dict[int, Latency]]:
    """Time every model at every batch size, in turn, without gradients, on random float32 images.

    Each turn of a fast model is an untimed pass, which brings its weights back into the caches after the others' turns,
    and a timed one. On a GPU a pass ends when the device is done, and is replayed from a graph: small batches launched
    kernel by kernel would show how fast Python is. What cannot be captured is launched.

    Args:
        models: Name -> forward pass on ``device``, in eval mode. A module with channels_last weights gets such images.
        input_shapes: Name -> shape of one image, ``(3, S, S)``.
        batch_sizes: Each is timed on its own; the last dictionary has them in this order. None: 1 and 32, and 256 on a
            GPU, which 32 small images do not fill.
        rounds: Timings of each model and batch size, at most.
        warmup: Untimed passes before the first round.
        seconds_per_model: Time share of a model, over all its batch sizes, warm-up aside; a model that is too slow for
            it is timed less often, yet at least 5 times.
        clock: Seconds, for tests.
        tell: Told after each round.

    Raises:
        ValueError: A model has no input shape, or there is nothing to time.
    """
    batch_sizes = batch_sizes_on(device) if batch_sizes is None else batch_sizes
    missing = [name for name in models if name not in input_shapes]
    if missing:
        raise ValueError(f"no input shape for: {', '.join(missing)}")
    if not models or not batch_sizes or min(*batch_sizes, rounds, warmup) < 1:
        raise ValueError("nothing to time: models, batch_sizes, rounds and warmup must not be empty or 0")
    share_s = seconds_per_model / len(batch_sizes)
    with torch.inference_mode(), fast_kernels(device):
        rows = [
            [
                _Cell(name, size, _forward(model, input_shapes[name], size, device), share_s, rounds)
                for size in batch_sizes
            ]
            for name, model in models.items()
        ]
        for cell in itertools.chain.from_iterable(rows):
            _warm_up(cell, warmup, clock)
        _run_rounds(rows, rounds, clock, tell)
    return {row[0].name: {cell.batch_size: _summary(cell) for cell in row} for row in rows}


def time_one_image(models: Mapping[str, Callable[[Tensor], Tensor]], side: int) -> dict[str, Latency]:
    """Time one RGB image of ``side`` x ``side`` pixels on the CPU, in turn, for about a second a model."""
    shapes = dict.fromkeys(models, (3, side, side))
    timings = measure_latency(models, shapes, device=torch.device("cpu"), batch_sizes=(1,), seconds_per_model=1.0)
    return {name: by_batch[1] for name, by_batch in timings.items()}


def batch_sizes_on(device: torch.device) -> tuple[int, ...]:
    """What is timed by default."""
    return (1, 32, 256) if device.type == "cuda" else (1, 32)


def _run_rounds(rows: list[list[_Cell]], rounds: int, clock: Callable[[], float], tell: Tell) -> None:
    for round_index in range(rounds):
        first = round_index % len(rows)
        for cell in itertools.chain.from_iterable(rows[first:] + rows[:first]):
            if cell.is_due(round_index):
                _take_turn(cell, clock)
        tell(StageProgress(_STAGE, round_index + 1, rounds))


def _warm_up(cell: _Cell, passes: int, clock: Callable[[], float]) -> None:
    """Run untimed passes, fewer where they use the share up, and plan the turns by the fastest."""
    start = clock()
    fastest_s = math.inf
    for _ in range(passes):
        beat()
        before = clock()
        cell.run()
        now = clock()
        fastest_s = min(fastest_s, now - before)
        if now - start >= cell.share_s:
            break
    cell.settles = fastest_s < SETTLE_BELOW_S
    turn_s = fastest_s * (2 if cell.settles else 1)
    affordable = math.floor(cell.share_s / turn_s) if turn_s > 0 else cell.rounds
    cell.turns = min(cell.rounds, max(MIN_TIMINGS, affordable))


def _take_turn(cell: _Cell, clock: Callable[[], float]) -> None:
    beat()
    start = clock()
    if cell.settles:
        cell.run()
    before = clock()
    cell.run()
    now = clock()
    cell.seconds.append(now - before)
    cell.spent_s += now - start


def _forward(
    model: Callable[[Tensor], Tensor], shape: Sequence[int], batch_size: int, device: torch.device
) -> Callable[[], None]:
    # Random, since zeros skip work in some kernels and denormals slow down others.
    images = torch.randn(batch_size, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    if _is_channels_last(model):
        images = images.contiguous(memory_format=torch.channels_last)

    replay = _captured(model, images) if device.type == "cuda" and isinstance(model, nn.Module) else None

    def run() -> None:
        if replay is not None:
            replay()
        else:
            model(images)
        synchronize(device)

    return run


def _captured(model: nn.Module, images: Tensor) -> Callable[[], object] | None:
    """One forward pass as a CUDA graph; None where it waits for the device on its way, or takes memory of its own."""
    stream = torch.cuda.Stream(images.device)
    stream.wait_stream(torch.cuda.current_stream(images.device))
    with torch.cuda.stream(stream):
        for _ in range(3):  # libraries prepare, and cuDNN tries its kernels out, in what is no part of the graph
            model(images)
    torch.cuda.current_stream(images.device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            model(images)
    except RuntimeError:
        synchronize(images.device)
        return None
    return graph.replay


def _is_channels_last(model: Callable[[Tensor], Tensor]) -> bool:
    """Whether a module's convolutions are stored so; 1x1 kernels look the same either way and do not count."""
    if not isinstance(model, nn.Module):
        return False
    return any(
        weight.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
        for weight in model.parameters()
    )


def _summary(cell: _Cell) -> Latency:
    median_s = statistics.median(cell.seconds)
    return Latency(
        batch_size=cell.batch_size,
        median_ms=1000.0 * median_s,
        p90_ms=1000.0 * float(np.percentile(cell.seconds, 90)),
        n=len(cell.seconds),
        p99_ms=1000.0 * float(np.percentile(cell.seconds, 99)) if len(cell.seconds) >= P99_LEAST else None,
    )
