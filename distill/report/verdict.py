"""What an interval says, in words: the same ones wherever a loss is judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill.text import count, percent

if TYPE_CHECKING:
    from distill.evaluation.drop import DropVerdict

__all__ = ["METHODS", "drop_sentence", "drop_words"]

METHODS = {
    "mcnemar": "McNemar's mid-p test on the same images",
    "paired seeds": "paired by seed, Student's t, plus the sampling error of the images",
    "separate seeds": "Welch's t over seeds, plus the sampling error of the images",
    "one run": "Student's t over the seeds of one side, plus the sampling error of the images",
    "paired t": "Student's t, paired by image",
}
"""How a row was held against its baseline, by the name of the test."""


def drop_words(verdict: DropVerdict) -> str:
    """How much was lost, or gained, with its interval: ``loses 0.20 points [-0.10, 0.50] on 5,000 images``."""
    drop = verdict.drop
    verb, points, low, high = "loses", drop.estimate, drop.low, drop.high
    if points < 0:
        verb, points, low, high = "gains", -points, -high, -low
    bounds = f"[{percent(low)}, {percent(high)}]"
    return f"{verb} {percent(points)} points of {percent(verdict.reference)}% {bounds} on {count(verdict.n)} images"


def drop_sentence(verdict: DropVerdict) -> str:
    """The loss, its bounds, and whether "at most so much" is shown, refuted, or neither, and what would settle it."""
    allowed = f"at most {percent(verdict.allowed)} points"
    ends = {
        "shown": f"{allowed} is shown",
        "refuted": f"{allowed} is refuted",
        "not shown": f"{allowed} is not shown"
        + (f": about {count(verdict.needed)} images would tell" if verdict.needed else ""),
    }
    return f"{drop_words(verdict)} (95% interval, paired); {ends[verdict.word]}"
