"""What ``distill search`` may vary of a recipe's network: blocks and channels, by stage."""

from __future__ import annotations

from pydantic import Field, model_validator

from distill.recipe.base import PositiveInt, Spec

__all__ = ["SearchSpec", "WidthSpec"]


class WidthSpec(Spec):
    """The channels that a stage may have."""

    min: PositiveInt = 8
    max: PositiveInt | None = Field(None, description="null: 256, or twice the recipe's widest stage")
    multiple: PositiveInt = Field(8, description="widths are multiples of it, which vector kernels like")

    @model_validator(mode="after")
    def _holds_a_width(self) -> WidthSpec:
        if self.max is not None and self.max // self.multiple * self.multiple < self.min:
            raise ValueError(f"no multiple of {self.multiple} lies between {self.min} and {self.max}")
        return self


class SearchSpec(Spec):
    """The shapes that a search may choose."""

    depth: tuple[tuple[PositiveInt, PositiveInt], ...] | None = Field(
        None, description="fewest and most blocks of each stage; null: 1 to 4, or to the recipe's deepest stage"
    )
    width: WidthSpec = WidthSpec()

    @model_validator(mode="after")
    def _ranges_rise(self) -> SearchSpec:
        for fewest, most in self.depth or ():
            if fewest > most:
                raise ValueError(f"depth: {fewest} is above {most}")
        return self
