"""What measuring a certified file again found: each thing that was certified, what is here, and whether it holds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["GateCheck", "State", "Verified"]

State = Literal["holds", "fails", "not judged", "not checked"]


@dataclass(frozen=True)
class GateCheck:
    """One line.

    Attributes:
        what: For people; ``certified`` and ``here`` are texts, too.
        state: ``holds``, ``fails``, ``not judged`` (nothing was promised, or it is another machine's), ``not checked``.
        why: What stands behind the state; empty where it speaks for itself.
        is_timed: It is a time, which a busy machine changes.
    """

    what: str
    certified: str
    here: str
    state: State
    why: str = ""
    is_timed: bool = False


@dataclass(frozen=True)
class Verified:
    """A certificate, held against this machine.

    Attributes:
        same_machine: Whether processor, instructions and runtime are those that it was measured on.
    """

    file: str
    certificate: str
    machine: str
    certified_machine: str
    same_machine: bool
    threads: int
    lines: tuple[GateCheck, ...]
    notes: tuple[str, ...] = ()

    @property
    def fails(self) -> tuple[GateCheck, ...]:
        """What does not hold."""
        return tuple(each for each in self.lines if each.state == "fails")

    @property
    def unchecked(self) -> tuple[GateCheck, ...]:
        """What could not be checked here."""
        return tuple(each for each in self.lines if each.state == "not checked")

    def to_json(self) -> dict[str, Any]:
        """The document that ``distill verify --json`` prints."""
        return asdict(self) | {"holds": not self.fails and not self.unchecked}
