"""How a recipe names code of the user's own: a reference, and the arguments that it is called with."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from distill.recipe.base import NonNegative, Spec

__all__ = ["OwnLoss", "OwnOptions", "Reference"]

# MODULE:NAME or FILE.py:NAME; the file may lie on a drive of Windows. Or a name that an installed package offers.
_CODE = r"([A-Za-z]:[\\/])?[^:\x00-\x1f]+:[^\W\d]\w*(\.[^\W\d]\w*)*"


def _more_than_a_file(reference: str) -> str:
    if ":" not in reference and reference.endswith(".py"):
        raise ValueError(f"{reference} is a file, and not what in it: {reference}:NAME")
    return reference


Reference = Annotated[
    str,
    Field(pattern=rf"^({_CODE}|[A-Za-z0-9][A-Za-z0-9_.-]*)$", max_length=512),
    AfterValidator(_more_than_a_file),
]


class OwnOptions(Spec):
    """Keyword arguments for a function of one's own: numbers, texts, flags, and lists of them."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow", allow_inf_nan=False)

    @property
    def values(self) -> dict[str, Any]:
        """By name; a list is a list."""
        return dict(self.__pydantic_extra__ or {})

    @model_validator(mode="after")
    def _plain_values(self) -> OwnOptions:
        for name, value in self.values.items():
            items = value if isinstance(value, list) else [value]
            if not name.isidentifier() or not all(isinstance(each, bool | int | float | str | None) for each in items):
                raise ValueError(f"{name} should be a number, a text, true, false, null, or a list of these")
        return self


class OwnLoss(Spec):
    """A loss of one's own. It runs with --allow-code alone."""

    name: Reference = Field(description="MODULE:NAME, FILE.py:NAME, or a package's name for it: a function, or a class")
    options: OwnOptions = Field(OwnOptions(), description="further arguments of the function, or the class's")
    own_weight: NonNegative = 1.0
    code_sha256: str | None = Field(None, description="of the file that it is written in; a run states it")

    @property
    def called(self) -> str:
        """Its name without the file or module that has it."""
        return self.name.rpartition(":")[2]
