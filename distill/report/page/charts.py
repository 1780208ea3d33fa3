"""The page's pictures of what was won and lost: accuracy against cost, curves, confusions, errors by class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from markupsafe import Markup

from distill.report.label_placement import Box, apart, beside, marks_of
from distill.report.page.content import Member, Pair
from distill.report.page.draw import Frame, Scale, Svg
from distill.report.page.markers import DASHES, around, dash, filled, kind_of
from distill.results.rows import Row
from distill.text import count, cut, fixed, percent, short_number, signed

__all__ = ["MAX_CELLS", "MAX_CLASSES", "confusion", "cost", "curves", "errors", "parts"]

MAX_CELLS = 24  # classes of a matrix that can still be read,
MAX_CLASSES = 30  # and of bars
_MAX_POINTS = 12_000  # of all curves of one picture: each is some ten bytes
_COST = {"latency_b1_ms": "latency of one image, ms", "params": "parameters", "size_mb": "size, MB"}
_MAX_NAMES, _LONGEST_NAME = 8, 28  # beyond which names would lie over the marks, or be cut to look alike
_LETTER_WIDTH, _LINE_HEIGHT, _GAP = 6.6, 15.0, 13.0  # of a name, in pixels


# Accuracy against cost


@dataclass(frozen=True)
class _Point:
    member: Member
    x: float
    y: float
    row: Row


def by_test_set(members: Sequence[Member]) -> list[tuple[str, list[Member]]]:
    """Members that were tested on the same images, and what these are: others belong in no picture with them."""
    groups: dict[str, list[Member]] = {}
    for member in members:
        groups.setdefault(member.row.test_set or member.row.dataset, []).append(member)
    return [(_images(group[0].row), group) for group in groups.values()]


def _images(row: Row) -> str:
    return row.dataset if row.test_images is None else f"{row.dataset}, {count(row.test_images)} test images"


def cost(members: Sequence[Member], column: str) -> Markup | None:
    """Test accuracy against one cost, log scale, with what no other beats joined by a line; None for fewer than two."""
    points = [
        _Point(each, float(value), each.row.test_top1, each.row)
        for each in members
        if (value := getattr(each.row, column)) and each.row.test_top1 is not None
    ]
    if len(points) < 2:
        return None
    bounds = [bound for point in points for bound in _bounds(point.row) if bound is not None]
    told = "; ".join(f"{p.member.label} {percent(p.y)}% at {short_number(p.x)}" for p in points)
    frame = Frame(
        f"Test accuracy against {_COST[column]}: {told}",
        x=lambda low, high: Scale.around([p.x for p in points], low, high, log=True, margin=0.12),
        y=lambda low, high: Scale.around([*bounds, *(p.y for p in points)], low, high, margin=0.1),
        x_name=f"{_COST[column]} (log)",
        y_text=lambda value: f"{100 * value:g}%",
        size=(340, 256),
    )
    _front(frame, points)
    for point in points:
        _point(frame, point)
    _names(frame, points)
    return frame.svg.markup()


def _bounds(row: Row) -> tuple[float | None, float | None]:
    return row.test_top1_low, row.test_top1_high


def _front(frame: Frame, points: Sequence[_Point]) -> None:
    """Steps through the points that no other beats in this cost, of those tested on the images of most of them."""
    sets = [point.row.test_set for point in points]
    common = max(dict.fromkeys(sets), key=sets.count)
    best: list[_Point] = []
    for point in sorted((p for p in points if p.row.test_set == common), key=lambda p: (p.x, -p.y)):
        if not best or point.y > best[-1].y:
            best.append(point)
    corners: list[tuple[float, float]] = []
    for point in best:
        if corners:
            corners.append((point.x, corners[-1][1]))
        corners.append((point.x, point.y))
    if len(best) > 1:
        frame.path(corners, kind="front")


def _point(frame: Frame, point: _Point) -> None:
    x, y = frame.x(point.x), frame.y(point.y)
    low, high = _bounds(point.row)
    if low is not None and high is not None:
        frame.svg.line(x, frame.y(low), x, frame.y(high), kind=kind_of(point.member, "bar"))
    told = f"{point.member.label}: {percent(point.y)}%, {short_number(point.x)}"
    frame.svg.mark(x, y, point.member.shape, kind=filled(point.member), tip=told)


def _names(frame: Frame, points: Sequence[_Point]) -> None:
    """Names beside their points: over no mark, bar or other name, where there is room; the legend has them all."""
    if len(points) > _MAX_NAMES or any(len(point.member.label) > _LONGEST_NAME for point in points):
        return
    at = [(frame.x(point.x), frame.y(point.y)) for point in points]
    bounds = [_bounds(point.row) for point in points]
    bars = [None if low is None or high is None else (frame.y(low), frame.y(high)) for low, high in bounds]
    places = beside(
        at,
        [len(point.member.label) * _LETTER_WIDTH for point in points],
        height=_LINE_HEIGHT,
        gap=_GAP,
        area=Box(frame.left, frame.right, frame.top, frame.bottom),
        marks=marks_of(at, bars, radius=6, width=2),
    )
    for (x, y), point, place in zip(at, points, places, strict=True):
        if abs(place.y - y) > _LINE_HEIGHT / 2:
            frame.svg.line(x + 6 * place.side, y, x + (_GAP - 2) * place.side, place.y, kind="lead")
        anchor = "start" if place.side > 0 else "end"
        frame.svg.text(x + _GAP * place.side, place.y + 4, point.member.label, kind="word", anchor=anchor)


# Curves


def curves(members: Sequence[Member], key: str, *, name: str, share: bool) -> Markup | None:
    """One value of every seed over epochs; None where nobody measured it."""
    shown = [(each, each.curves[key]) for each in members if each.curves.get(key)]
    if not shown:
        return None
    most = max(_MAX_POINTS // sum(len(of) for _, of in shown), 20)
    every = [point for _, of in shown for curve in of for point in curve.points]
    ends = "; ".join(f"{each.label} ends at {_value(of[-1].points[-1][1], share)}" for each, of in shown)
    frame = Frame(
        f"{name} by epoch, a line for each seed: {ends}",
        x=partial(_epochs, [epoch for epoch, _ in every]),
        y=partial(around, [value for _, value in every], log=not share and min(value for _, value in every) > 0),
        x_name="epoch",
        whole=True,
        y_text=(lambda value: f"{100 * value:g}%") if share else short_number,
        size=(400, 260),
    )
    for each, of in shown:
        for curve in of:
            told = f"{each.label}, seed {curve.seed}: {_value(curve.points[-1][1], share)} at the end"
            frame.path(_thinned(curve.points, most), kind=kind_of(each, "line", dash(each)).strip(), tip=told)
    return frame.svg.markup()


def _epochs(values: Sequence[int], low: float, high: float) -> Scale:
    first, last = min(values), max(values)
    return Scale(first, last, low, high) if last > first else Scale(first - 1, last + 1, low, high)


def _value(value: float, share: bool) -> str:
    return f"{percent(value)}%" if share else f"{value:.3g}"


def _thinned(points: Sequence[tuple[int, float]], most: int) -> Sequence[tuple[int, float]]:
    """Every so many-th point, and the last."""
    step = math.ceil(len(points) / most)
    return points if step <= 1 else [*points[:-1:step], points[-1]]


def parts(member: Member) -> Markup | None:
    """The training loss of a member's seeds and, where it has several, its parts; None where nothing was kept."""
    keys = ["train_loss", *(member.parts if len(member.parts) > 1 else ())]
    shown = [(key, member.curves[key]) for key in keys if member.curves.get(key)]
    if not shown:
        return None
    every = [point for _, of in shown for curve in of for point in curve.points]
    ends = "; ".join(f"{_part(key)} ends at {of[-1].points[-1][1]:.3g}" for key, of in shown)
    frame = Frame(
        f"Training loss of {member.label} by epoch: {ends}",
        x=partial(_epochs, [epoch for epoch, _ in every]),
        y=partial(around, [0.0, *(value for _, value in every)]),
        x_name="epoch",
        whole=True,
        size=(340, 190),
        right=60,
    )
    most = max(_MAX_POINTS // sum(len(of) for _, of in shown), 20)
    for place, (_, of) in enumerate(shown):
        for curve in of:
            kind = kind_of(member, "line", DASHES[place % len(DASHES)]).strip()
            frame.path(_thinned(curve.points, most), kind=kind, tip=f"seed {curve.seed}")
    heights = apart([frame.y(of[-1].points[-1][1]) for _, of in shown], 14)
    for (key, of), height in zip(shown, heights, strict=True):
        x = frame.x(of[-1].points[-1][0])
        frame.svg.text(x + 6, height + 4, cut(_part(key), 11), kind="word")
    return frame.svg.markup()


def _part(key: str) -> str:
    return "all" if key == "train_loss" else key.removeprefix("train_")


# What the student lost


def confusion(pair: Pair) -> Markup | None:
    """Images that the student takes for something else than the teacher does, by class; None for too many classes."""
    classes = pair.classes
    if len(classes) > MAX_CELLS:
        return None
    cell = max(18.0, min(34.0, 460 / len(classes)))
    names = [cut(label, 14) for label in classes]
    left = 16 + max(map(len, names)) * 7.0
    upright = max(map(len, names)) <= 3
    foot = 40.0 if upright else 24 + max(map(len, names)) * 6.2
    largest = max((abs(value) for row in pair.difference for value in row), default=0.0) or 1.0
    told = "; ".join(f"{each.label} as {each.predicted} {each.student - each.teacher:+.1f}" for each in pair.lost[:5])
    side = cell * len(classes)
    svg = Svg(left + side + 8, 8 + side + foot, f"Confusions, student less teacher: {told}")
    for i, row in enumerate(pair.difference):
        y = 4 + cell * i
        svg.text(left - 8, y + cell / 2 + 4, names[i], kind="tick", anchor="end")
        for j, value in enumerate(row):
            _cell(
                svg,
                left + cell * j,
                y,
                side=cell,
                value=value,
                level=0 if round(value, 1) == 0 else 1 + min(int(4 * abs(value) / largest), 4),
                worse=(value < 0) if i == j else (value > 0),
                told=f"{classes[i]} as {classes[j]}: {signed(value / 100, 1)}",
            )
    for j, name in enumerate(names):
        x, y = left + cell * (j + 0.5), 4 + cell * len(classes) + 16
        if upright:
            svg.text(x, y, name, kind="tick", anchor="middle")
        else:
            svg.add("text", kind="tick", text_anchor="end", transform=f"translate({x + 4:.1f} {y - 6:.1f}) rotate(-50)")
            svg.say(name)
    svg.text(left + cell * len(classes) / 2, svg.height - 4, "taken for", kind="name", anchor="middle")
    return svg.markup()


def _cell(svg: Svg, x: float, y: float, *, side: float, value: float, level: int, worse: bool, told: str) -> None:
    """A square of one of five strengths; ``level`` 0 is no change."""
    kind = f"cell {'worse' if worse else 'better'} l{level}" if level else "cell none"
    svg.add("rect", kind=kind, tip=told, x=x + 0.5, y=y + 0.5, width=side - 1, height=side - 1)
    if level and side >= 24:
        text = signed(value / 100, 0 if abs(value) >= 9.95 or value == round(value) else 1)
        svg.text(x + side / 2, y + side / 2 + 3.5, text, kind=f"number l{level}", anchor="middle")


def errors(pair: Pair, teacher: Member, student: Member) -> Markup:
    """Share of each class's images that teacher and student miss; of many classes those that lost most."""
    known = [each for each in pair.errors if each.teacher is not None and each.student is not None]
    shown = sorted(known, key=lambda each: (each.teacher or 0) - (each.student or 0))[:MAX_CLASSES]
    most = max((value for each in shown for value in (each.teacher, each.student) if value is not None), default=0.0)
    names = [cut(each.label, 18) for each in shown]
    left, high = 16 + max(map(len, names), default=1) * 7.0, 26.0
    told = "; ".join(f"{e.label} {percent(e.teacher, 1)}% and {percent(e.student, 1)}%" for e in shown[:5])
    svg = Svg(420, 8 + high * len(shown), f"Errors by class, teacher and student: {told}")
    scale = Scale(0.0, most or 1.0, left, 370)
    for place, (each, name) in enumerate(zip(shown, names, strict=True)):
        y = 4 + high * place
        svg.text(left - 8, y + 14, name, kind="tick", anchor="end")
        for row, (member, value) in enumerate(((teacher, each.teacher), (student, each.student))):
            assert value is not None
            top = y + 1 + 10 * row
            told = f"{each.label}: {member.label} misses {percent(value)}% of {count(each.n)}"
            width = max(scale(value) - left, 0.6)
            svg.add("rect", kind=kind_of(member, "solid"), tip=told, x=left, y=top, width=width, height=8.5)
            svg.text(max(scale(value), left) + 5, top + 8, f"{fixed(100 * value, 1)}", kind="small")
    return svg.markup()
