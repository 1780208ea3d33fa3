"""Try ways of quantising a graph, and keep the fastest that loses no more than is allowed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from distill.compression.quantize import CALIBRATIONS, SCHEMES, int8_schemes, quantizer
from distill.compression.search import LATENCY_TIE
from distill.data.images import evenly_spaced_positions
from distill.evaluation.correct import correct
from distill.evaluation.drop import DropVerdict, can_be_shown, judge_drop
from distill.evaluation.latency import time_one_image
from distill.models.onnx_open import on_bytes, session
from distill.models.onnx_write import INPUT, OUTPUT
from distill.results.figures import Latency
from distill.team.watch import with_heartbeat

if TYPE_CHECKING:
    import onnx

__all__ = ["Attempt", "Int8Selection", "LabelledImages", "choose_int8", "onnx_logits", "time_in_turn"]

_BATCH = 64
_GLANCE = 1000
_NO_DOUBT = 0.999


@dataclass(frozen=True)
class LabelledImages:
    """Images and labels that a file is judged on, and where they are from.

    Shapes:
        pixels: ``(N, 3, S, S)`` uint8.
        labels: ``(N,)`` int64.
    """

    pixels: np.ndarray
    labels: np.ndarray
    split: str


@dataclass(frozen=True)
class Attempt:
    """One way of quantising, and what came of it.

    Attributes:
        drop: Of top-1 against the fp32 network on the same images.
        latency_b1_ms: Median for one image, timed in turn with the others of its round; None where it lost too much to
            be timed.
        kept: Whether this is the file.
        trained: Whether the network had quantisation-aware training before.
    """

    scheme: str
    drop: DropVerdict
    latency_b1_ms: float | None = None
    kept: bool = False
    trained: bool = False

    def to_json(self) -> dict[str, Any]:
        """As it stands in the document of ``distill quantize --json``."""
        return asdict(self) | {"drop": self.drop.to_json()}


@dataclass(frozen=True)
class Int8Selection:
    """What was tried, and the graph that was kept; None where everything lost too much.

    Attributes:
        fp32_latency_b1_ms: Of the fp32 graph, timed in turn with the attempts that were; None where none was.
    """

    attempts: tuple[Attempt, ...]
    model: onnx.ModelProto | None
    fp32_latency_b1_ms: float | None


def choose_int8(
    model: onnx.ModelProto,
    calibration: np.ndarray,
    judged: LabelledImages,
    *,
    allowed: float,
    prove: bool = False,
    threads: int = 1,
    reference: np.ndarray | None = None,
    enlarged: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> Int8Selection:
    """Quantise with more and more care until something loses at most ``allowed``; of those take the fastest.

    Args:
        calibration: Training images, uint8 ``(N, 3, S, S)``: they set the ranges.
        judged: Validation images: they decide. Never test images.
        allowed: Of top-1, a fraction.
        prove: Ask the interval's upper end instead of the estimate.
        threads: While timing.
        reference: Which judged images were answered right by what the loss is measured against, ``(N,)`` bool; None:
            by the fp32 graph.
        enlarged: The network takes larger images than there are: its first layer stays in float.
        tell: Told in a line what is not good enough.
    """
    if reference is None:
        reference = correct(onnx_logits(model, judged.pixels), judged.labels)
    attempts: list[Attempt] = []
    with quantizer(model, calibration) as quantised_by:
        for care in CALIBRATIONS:
            made: dict[str, onnx.ModelProto] = {}
            for scheme in (replace(scheme, **care) for scheme in int8_schemes(enlarged=enlarged)):
                quantised = quantised_by(scheme)
                drop = _judge(quantised, judged, reference, partial(judge_drop, allowed=allowed, prove=prove))
                attempts.append(Attempt(str(scheme), drop))
                if drop.passes:
                    made[str(scheme)] = quantised
            if made:
                return _fastest(model, made, attempts, judged.pixels.shape[-1], threads)
            tell(_too_much(attempts[-len(SCHEMES) :], judged.split))
            if prove and not can_be_shown(len(judged.labels), allowed):
                break  # nor would a file that answers all alike
    return Int8Selection(tuple(attempts), None, None)


def _judge(
    model: onnx.ModelProto, judged: LabelledImages, reference: np.ndarray, judge: Callable[..., DropVerdict]
) -> DropVerdict:
    """On all images; of many on some alone where these leave no doubt that it loses more."""
    some = evenly_spaced_positions(len(judged.labels), _GLANCE)
    if len(judged.labels) >= 2 * _GLANCE:
        right = correct(onnx_logits(model, judged.pixels[some]), judged.labels[some])
        if judge(right, reference[some], level=_NO_DOUBT).word == "refuted":
            return judge(right, reference[some])
    return judge(correct(onnx_logits(model, judged.pixels), judged.labels), reference)


def _too_much(attempts: Sequence[Attempt], split: str) -> str:
    """Why none of these is good enough, by the one that came nearest."""
    best = min(attempts, key=lambda each: each.drop.decisive)
    drop, on = best.drop.drop, f"on {best.drop.n} {split} images"
    if best.drop.prove:
        bounds = f"{100 * drop.estimate:.2f} points lost {on}, {100 * drop.high:.2f} at most with 95%"
        return f"{best.scheme}: {bounds}, above the allowed {100 * best.drop.allowed:.2f}"
    return f"{best.scheme} loses {100 * drop.estimate:.2f} points {on}, and no other kernel less: too much"


def _fastest(
    model: onnx.ModelProto,
    made: dict[str, onnx.ModelProto],
    attempts: list[Attempt],
    side: int,
    threads: int,
) -> Int8Selection:
    timings = time_in_turn({"": model} | made, side, threads=threads)
    latencies = {name: latency.median_ms for name, latency in timings.items()}
    least = min(latencies[name] for name in made)
    best = next(name for name in made if latencies[name] <= LATENCY_TIE * least)  # of those as fast always the same one
    timed = tuple(
        replace(each, latency_b1_ms=latencies.get(each.scheme), kept=each.scheme == best) for each in attempts
    )
    return Int8Selection(timed, made[best], latencies[""])


def time_in_turn(models: dict[str, onnx.ModelProto], side: int, *, threads: int) -> dict[str, Latency]:
    """Time graphs side by side for one image of ``side`` pixels."""
    runs = {
        name: on_bytes(session(model.SerializeToString(), threads=threads, place="the quantised graph"), side)
        for name, model in models.items()
    }
    return time_one_image(runs, side)


def onnx_logits(model: onnx.ModelProto, pixels: np.ndarray) -> np.ndarray:
    """Logits ``(N, C)`` float32 of a graph."""
    running = session(model.SerializeToString(), threads=1, place="the exported graph")
    starts = with_heartbeat(range(0, len(pixels), _BATCH))
    parts = [running.run([OUTPUT], {INPUT: pixels[at : at + _BATCH]})[0] for at in starts]
    return np.concatenate(parts)
