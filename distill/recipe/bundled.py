"""The recipes that come with distill, by name.

``shipped`` is a link to the ``recipes/`` folder at the top of the source tree: setuptools follows it into a wheel, and
an editable install reads through it. Where links cannot be made (a Windows checkout holds a text file in its place),
the folder beside the package is read instead.
"""

from __future__ import annotations

from pathlib import Path

from distill.errors import RecipeError
from distill.recipe.shape import closest

__all__ = ["SUFFIXES", "bundled_recipes", "find_recipe", "strip_suffix"]

SUFFIXES = (".yaml", ".yml")


def bundled_recipes() -> dict[str, Path]:
    """Every bundled recipe: name to file, sorted by name."""
    package = Path(__file__).resolve().parent
    for folder in (package / "shipped", package.parents[1] / "recipes"):
        if folder.is_dir():
            files = (path for path in folder.glob("*.yaml") if path.is_file() and not path.name.startswith("."))
            return {path.stem: path for path in sorted(files, key=lambda path: path.stem)}
    return {}


def find_recipe(name: str) -> Path:
    """The file of a bundled recipe, named with or without ``.yaml``.

    Raises:
        RecipeError: No bundled recipe has the name; the message has the nearest one.
    """
    recipes = bundled_recipes()
    stem = strip_suffix(name)
    if stem in recipes:
        return recipes[stem]
    near = closest(stem, recipes)
    meant = f" (did you mean '{near}'?)" if near else ""
    raise RecipeError(f"no bundled recipe {name!r}{meant}", hint="see them all: distill recipe list")


def strip_suffix(name: str) -> str:
    """A recipe's name without ``.yaml`` or ``.yml``."""
    return next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)
