"""A search's folder, ``searches/<name>``: a sweep's, with search.json in the place of sweep.json, and what it ships."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from distill.errors import RunError, UsageError
from distill.files import read_json, write_json
from distill.references import check_name
from distill.sweeps.folder import SweepFolder
from distill.sweeps.plan import BaseRecipe

__all__ = ["SearchDefinition", "SearchFolder", "searches_dir"]

_VERSION = 1
_MAY_CHANGE = (
    "max_drop",
    "prove",
    "against",
    "source",
    "evaluations",
    "hours",
    "seeds",
)  # what is trained still counts


@dataclass(frozen=True)
class SearchDefinition:
    """What a search was asked for, as search.json keeps it.

    Attributes:
        recipe: As written, overrides applied, defaults left open, without ``data.root``.
        search: The space, resolved.
        evaluations: As asked; of ``hours``, plan.json has how many these allow.
        teachers: Which run folder each name of a teacher meant when the search began.
    """

    source: str
    recipe: dict[str, Any]
    search: dict[str, Any]
    budgets: dict[str, float]
    runtime: str
    threads: int
    measure: str | None
    evaluations: int
    hours: float | None
    seeds: int
    max_drop: float
    prove: bool
    against: str | None
    teacher: tuple[str, ...]
    teachers: dict[str, str]

    @cached_property
    def base(self) -> BaseRecipe:
        """The recipe that candidates change."""
        return BaseRecipe(self.recipe, self.source)

    def to_json(self) -> dict[str, Any]:
        """As search.json has it."""
        return {"version": _VERSION} | asdict(self)

    @classmethod
    def from_json(cls, tree: Mapping[str, Any], source: Path) -> SearchDefinition:
        """Read search.json.

        Raises:
            RunError: It is damaged.
        """
        try:
            known = {each.name: tree[each.name] for each in fields(cls)}
            definition = cls(**(known | {"teacher": tuple(map(str, known["teacher"]))}))
            assert isinstance(definition.recipe, dict)
            assert isinstance(definition.teachers, dict)
        except (KeyError, TypeError, AssertionError) as error:
            raise RunError(f"{source}: damaged", hint="remove the file, or use another --name") from error
        return definition


@dataclass(frozen=True)
class SearchFolder(SweepFolder):
    """One search's files. Every one is written as a whole."""

    @property
    def subject(self) -> str:
        """How messages call it."""
        return f"the search {self.path}"

    def search_definition(self) -> SearchDefinition | None:
        """What it was asked for; None where it has not begun."""
        path = self.path / "search.json"
        return SearchDefinition.from_json(read_json(path), path) if os.path.lexists(path) else None

    def claim(self, definition: SearchDefinition) -> None:
        """Begin the search, or go on with it; what judges its outcome may change, and all while nothing was trained.

        Raises:
            UsageError: The folder holds another search.
        """
        before = self.search_definition()
        if before is not None and self.trials.exists():
            one, two = _identity(before), _identity(definition)
            if different := [key for key in two if one[key] != two[key]]:
                raise UsageError(
                    f"{self.path} holds another search: other {', '.join(different)}",
                    hint="give this search a name of its own: --name NAME",
                )
        write_json(self.path / "search.json", definition.to_json())

    def decided(self, asked: Mapping[str, Any]) -> int | None:
        """How many evaluations these hours allow, as it was decided once."""
        path = self.path / "plan.json"
        plan = read_json(path) if path.is_file() else {}
        return int(plan["evaluations"]) if plan.get("asked") == asked else None

    def decide(self, asked: Mapping[str, Any], evaluations: int, seconds_per_epoch: float) -> None:
        """Keep it: a search that goes on makes as many."""
        plan = {"asked": dict(asked), "evaluations": evaluations, "seconds_per_epoch": round(seconds_per_epoch, 3)}
        write_json(self.path / "plan.json", plan)


def _identity(definition: SearchDefinition) -> dict[str, Any]:
    tree = asdict(definition)
    recipe = {key: value for key, value in tree["recipe"].items() if key != "teacher"}
    data = {key: value for key, value in recipe.get("data", {}).items() if key != "root"}
    kept = {key: value for key, value in tree.items() if key not in (*_MAY_CHANGE, "teachers")}
    return kept | {"recipe": recipe | {"data": data}}


def searches_dir(runs_dir: Path, name: str) -> SearchFolder:
    """The folder of a search, ``searches/<name>``, beside that of all runs.

    Raises:
        UsageError: The name cannot be a folder's.
    """
    return SearchFolder(runs_dir.parent / "searches" / check_name(name, "a search"))
