"""What a row of a table may be, in the order of tables; how each is shown. A new one needs a line here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["ROLES", "Look", "RoleName", "look_of", "role_order"]

RoleName = Literal["teacher", "student", "baseline"]
"""What a recipe trains."""


@dataclass(frozen=True)
class Look:
    """How a role is shown.

    Attributes:
        style: On a terminal.
        color: In pictures: one of Okabe and Ito's, told apart with every common kind of colour blindness.
        marker: In pictures, matplotlib's sign.
    """

    style: str
    color: str
    marker: str


ROLES: dict[str, Look] = {
    "teacher": Look("cyan", "#0072B2", "s"),
    "baseline": Look("yellow", "#D55E00", "^"),
    "student": Look("green", "#009E73", "o"),
}
_OTHER = Look("", "#777777", "D")


def look_of(role: str) -> Look:
    """How a role is shown, one that is not listed too."""
    return ROLES.get(role, _OTHER)


def role_order(role: str) -> int:
    """Where rows of a role stand in a table."""
    return list(ROLES).index(role) if role in ROLES else len(ROLES)
