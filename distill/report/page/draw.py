"""Drawing by hand: an SVG of plain shapes and text, coloured by the page's style sheet, and the axes it stands on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from markupsafe import Markup

from distill.text import plain, short_number

__all__ = ["Frame", "Scale", "Svg", "ticks"]

_LETTER = 0.56  # width of an average letter over its height
_TICKS_EVERY = (1.0, 2.0, 2.5, 5.0, 10.0)


class Svg:
    """A picture that grows shape by shape; ``about`` is its alternative text, empty for one that says nothing more."""

    def __init__(self, width: float, height: float, about: str) -> None:
        self.width, self.height = width, height
        self._root = ET.Element("svg", viewBox=f"0 0 {_n(width)} {_n(height)}")
        for name, value in {"role": "img", "aria-label": plain(about)}.items() if about else [("aria-hidden", "true")]:
            self._root.set(name, value)

    def add(self, tag: str, *, kind: str = "", tip: str = "", **numbers: float | str) -> None:
        """A shape of CSS classes ``kind``; ``tip`` is told where the pointer rests on it."""
        shape = ET.SubElement(self._root, tag)
        if kind:
            shape.set("class", kind)
        for name, value in numbers.items():
            shape.set(name.replace("_", "-"), value if isinstance(value, str) else _n(value))
        if tip:
            ET.SubElement(shape, "title").text = plain(tip)

    def line(self, x1: float, y1: float, x2: float, y2: float, *, kind: str) -> None:
        """A straight line."""
        self.add("line", kind=kind, x1=x1, y1=y1, x2=x2, y2=y2)

    def path(self, points: Sequence[tuple[float, float]], *, kind: str, tip: str = "") -> None:
        """A line through points; one point alone is a dot."""
        if len(points) == 1:
            self.add("circle", kind=f"{kind} one", tip=tip, cx=points[0][0], cy=points[0][1], r=2.5)
        elif points:
            self.add("polyline", kind=kind, tip=tip, points=" ".join(f"{_n(x)},{_n(y)}" for x, y in points))

    def text(self, x: float, y: float, text: str, *, kind: str = "", anchor: str = "start") -> None:
        """Text that stays text, its base line at ``y``."""
        self.add("text", kind=kind, x=x, y=y, text_anchor=anchor)
        self.say(text)

    def say(self, text: str) -> None:
        """The words of the shape that was added last."""
        self._root[-1].text = plain(text)

    def mark(self, x: float, y: float, shape: str, *, kind: str, tip: str = "", size: float = 5.0) -> None:
        """A marker: ``circle``, ``square``, ``triangle`` or ``diamond``, all of about the same area."""
        corners = {
            "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
            "triangle": [(0.0, -1.2), (1.15, 0.85), (-1.15, 0.85)],
            "diamond": [(0.0, -1.25), (1.25, 0.0), (0.0, 1.25), (-1.25, 0.0)],
        }.get(shape)
        if corners is None:
            self.add("circle", kind=kind, tip=tip, cx=x, cy=y, r=size)
        else:
            points = " ".join(f"{_n(x + size * dx)},{_n(y + size * dy)}" for dx, dy in corners)
            self.add("polygon", kind=kind, tip=tip, points=points)

    def markup(self) -> Markup:
        """The element, with every text and attribute escaped."""
        return Markup(ET.tostring(self._root, encoding="unicode"))


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


@dataclass(frozen=True)
class Scale:
    """From values to pixels, along one axis; ``log`` for values above 0 alone."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = self._on(self.low), self._on(self.high)
        return self.start + (self.end - self.start) * ((self._on(value) - low) / (high - low) if high > low else 0.5)

    def _on(self, value: float) -> float:
        return math.log(value) if self.log else value

    @classmethod
    def around(
        cls, values: Sequence[float], start: float, end: float, *, log: bool = False, margin: float = 0.08
    ) -> Scale:
        """A scale that holds all values with some room around; of one value alone, a little to both sides."""
        low, high = min(values), max(values)
        if log:
            room = (high / low) ** margin if high > low else 1.5
            return cls(low / room, high * room, start, end, log=True)
        room = (high - low) * margin if high > low else max(abs(high) * 0.05, 1e-3)
        return cls(low - room, high + room, start, end)


def ticks(scale: Scale, most: int) -> list[float]:
    """Round values within a scale, at most ``most``.

    >>> ticks(Scale(0, 10, 0, 1), 6)
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    """
    if scale.log:
        return _log_ticks(scale.low, scale.high, most)
    span = scale.high - scale.low
    if span <= 0:
        return [scale.low]
    size = 10.0 ** math.floor(math.log10(span / most))
    for step in (each * size for each in _TICKS_EVERY):
        first, last = math.ceil(scale.low / step - 1e-9), math.floor(scale.high / step + 1e-9)
        if last - first + 1 <= most:
            return [round(place * step, 12) for place in range(first, last + 1)]
    return [scale.low, scale.high]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for parts in ((1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        found = [part * 10.0**decade for decade in decades for part in parts if low <= part * 10.0**decade <= high]
        if len(found) <= most:
            return found if len(found) > 1 else ticks(Scale(low, high, 0, 1), most)  # less than a step apart
    return found[:: math.ceil(len(found) / most)]


class Frame:
    """A picture with two axes: light lines across, values on the left, names where they are read.

    Args:
        x, y: Makes a scale of a range of pixels.
        right: Room beside the plot.
        whole: There is nothing between two whole numbers on x.
    """

    def __init__(
        self,
        about: str,
        *,
        x: Callable[[float, float], Scale],
        y: Callable[[float, float], Scale],
        x_name: str,
        y_text: Callable[[float], str] = short_number,
        x_text: Callable[[float], str] = short_number,
        size: tuple[float, float] = (420, 270),
        right: float = 14,
        whole: bool = False,
    ) -> None:
        width, height = size
        self.svg = Svg(width, height, about)
        self.top, self.bottom = 14.0, height - 40.0
        self.y = y(self.bottom, self.top)
        labels = [(value, y_text(value)) for value in ticks(self.y, 6)]
        self.left = 14 + max((len(text) for _, text in labels), default=1) * 12 * _LETTER
        self.right = width - right
        self.x = x(self.left, self.right)
        for value, text in labels:
            self.svg.line(self.left, self.y(value), self.right, self.y(value), kind="grid")
            self.svg.text(self.left - 7, self.y(value) + 4, text, kind="tick", anchor="end")
        self.svg.line(self.left, self.bottom, self.right, self.bottom, kind="axis")
        for value in (each for each in ticks(self.x, 6) if not whole or each == round(each)):
            self.svg.line(self.x(value), self.bottom, self.x(value), self.bottom + 4, kind="axis")
            self.svg.text(self.x(value), self.bottom + 17, x_text(value), kind="tick", anchor="middle")
        self.svg.text((self.left + self.right) / 2, height - 6, x_name, kind="name", anchor="middle")

    def path(self, points: Sequence[tuple[float, float]], *, kind: str, tip: str = "") -> None:
        """A line through values."""
        self.svg.path([(self.x(x), self.y(y)) for x, y in points], kind=kind, tip=tip)
