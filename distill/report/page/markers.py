"""How a model looks in every picture of the page: its colour, its marker, how its lines are broken."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from distill.report.page.content import Member
from distill.report.page.draw import Scale, Svg

__all__ = ["COLORS", "DASHES", "around", "dash", "filled", "kind_of", "swatch"]

COLORS = 7
DASHES = ("", "d1", "d2", "d3")
"""Classes of the style sheet."""


def kind_of(member: Member, *more: str) -> str:
    """Its classes in the style sheet: its colour, and more."""
    return " ".join((f"k{member.look % COLORS}", *more))


def filled(member: Member) -> str:
    """The classes of its marker: hollow for a file."""
    return kind_of(member, "hollow" if member.hollow else "dot")


def swatch(member: Member) -> Markup:
    """A member's marker, for legends and tables."""
    svg = Svg(14, 14, "")
    svg.mark(7, 7, member.shape, kind=filled(member))
    return svg.markup()


def dash(member: Member) -> str:
    """How its lines are broken: a colour's second turn unlike its first, a file's unlike its run's."""
    return DASHES[(member.look // COLORS + 2 * member.hollow) % len(DASHES)]


def around(values: Sequence[float], low: float, high: float, *, log: bool = False) -> Scale:
    """The axis of curves."""
    return Scale.around(values, low, high, log=log, margin=0.05)
