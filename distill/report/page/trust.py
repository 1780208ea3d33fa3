"""How far answers can be trusted: calibration, errors against coverage, corrupted images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from markupsafe import Markup

from distill.report.page.content import Member
from distill.report.page.draw import Frame, Scale
from distill.report.page.markers import around, dash, filled, kind_of
from distill.results.calibration import Reliability
from distill.results.corruptions import CORRUPTIONS, SEVERITIES, CorruptionResult
from distill.text import count, percent

__all__ = ["comparable", "corrupted", "reliability", "risk"]


def reliability(found: Reliability, member: Member, *, calibrated: Reliability | None = None) -> Markup:
    """Accuracy against confidence, in bins; on the diagonal a model is as right as it says."""
    svg_size = (260.0, 240.0)
    frame = Frame(
        f"Reliability of {member.label}: expected calibration error {percent(found.ece)}%, mean confidence "
        f"{percent(found.confidence)}%, accuracy {percent(found.accuracy)}%, {count(found.n)} images",
        x=lambda low, high: Scale(0, 1, low, high),
        y=lambda low, high: Scale(0, 1, low, high),
        x_name="confidence",
        x_text=lambda value: f"{100 * value:.0f}%",
        y_text=lambda value: f"{100 * value:.0f}%",
        size=svg_size,
        right=18,
    )
    for each in found.bins:
        if not each.n or each.accuracy is None or each.confidence is None:
            continue
        x, width = frame.x(each.low), frame.x(each.high) - frame.x(each.low)
        told = f"{count(each.n)} images: {percent(each.confidence, 1)}% sure, {percent(each.accuracy, 1)}% right"
        weight = "many" if each.n >= 0.02 * found.n else "few"
        top = frame.y(each.accuracy)
        frame.svg.add(
            "rect", kind=kind_of(member, weight), tip=told, x=x + 0.5, y=top, width=width - 1, height=frame.bottom - top
        )
    frame.path([(0, 0), (1, 1)], kind="ideal")
    for bins, kind in ((calibrated, "after"),):
        for each in bins.bins if bins else ():
            if each.n and each.accuracy is not None and each.confidence is not None:
                frame.svg.add("circle", kind=kind, cx=frame.x(each.confidence), cy=frame.y(each.accuracy), r=3)
    return frame.svg.markup()


def risk(members: Sequence[Member]) -> Markup | None:
    """Share of wrong answers if only the images are answered that a model is surest of."""
    shown = [(each, each.risk_coverage) for each in members if each.risk_coverage is not None]
    if not shown:
        return None
    told = "; ".join(f"{each.label} {percent(found.risk[-1])}% of all" for each, found in shown)
    frame = Frame(
        f"Errors among the images that each model is surest of: {told}",
        x=lambda low, high: Scale(0, 1, low, high),
        y=partial(around, [0.0, *(value for _, found in shown for value in found.risk)]),
        x_name="share of the images that are answered",
        x_text=lambda value: f"{100 * value:g}%",
        y_text=lambda value: f"{100 * value:g}%",
        size=(400, 260),
        right=22,
    )
    for each, found in shown:
        points = list(zip(found.coverage, found.risk, strict=True))
        frame.path(points, kind=kind_of(each, "line", dash(each)).strip(), tip=each.label)
    return frame.svg.markup()


def corrupted(members: Sequence[Member]) -> Markup | None:
    """Mean top-1 over all corruptions by severity, of those that were shown the same corrupted images."""
    shown = comparable(members)
    if not shown:
        return None
    lines = [(each, [_mean_at(found, level) for level in range(len(SEVERITIES) + 1)]) for each, found in shown]
    told = "; ".join(f"{each.label} {percent(of[0], 1)}% clean, {percent(of[-1], 1)}% at 5" for each, of in lines)
    frame = Frame(
        f"Top-1 by severity, mean of six corruptions: {told}",
        x=lambda low, high: Scale(0, len(SEVERITIES), low, high),
        y=partial(around, [value for _, of in lines for value in of]),
        x_name="severity (0: clean)",
        y_text=lambda value: f"{100 * value:g}%",
        whole=True,
        size=(400, 260),
    )
    for each, of in lines:
        kind = kind_of(each, "line", dash(each)).strip()
        frame.path([(float(level), value) for level, value in enumerate(of)], kind=kind, tip=each.label)
        for level, value in enumerate(of):
            mark = f"{each.label}, severity {level}: {percent(value, 1)}%"
            frame.svg.mark(frame.x(level), frame.y(value), each.shape, kind=filled(each), tip=mark, size=3.5)
    return frame.svg.markup()


def comparable(members: Sequence[Member]) -> list[tuple[Member, CorruptionResult]]:
    """The members that were shown the same corrupted images as the first that was shown any."""
    found = [(each, each.corruptions) for each in members if each.corruptions is not None]
    return [(each, result) for each, result in found if result.images_key == found[0][1].images_key]


def _mean_at(found: CorruptionResult, level: int) -> float:
    return sum(found.curve(name)[level] for name in CORRUPTIONS) / len(CORRUPTIONS)
