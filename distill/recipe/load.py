"""Recipes from files and text: YAML, then overrides, then the schema, with every mistake told at once."""

from __future__ import annotations

import errno
import json
import os
import select
import stat
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from distill.errors import RecipeError, UsageError
from distill.recipe.bundled import SUFFIXES, bundled_recipes, strip_suffix
from distill.recipe.dump import dump_recipe
from distill.recipe.mistakes import MAX_MISTAKES, Mistake, check_tree
from distill.recipe.overrides import (
    Override,
    OverrideError,
    merge_overrides,
    override_at,
    override_below,
    parse_override,
)
from distill.recipe.schema import Recipe
from distill.recipe.shape import closest
from distill.recipe.yaml_tree import BROKEN, YamlTree, read_yaml, show
from distill.references import listed
from distill.text import plain, shorten

__all__ = ["check_text", "load_recipe", "parse_recipe"]

MAX_BYTES = 1_000_000
_PIPE_S = 30.0
_KEPT = 128  # recipes of a process; few comparisons have more runs
_HINT = "see every key: distill recipe schema"
_HINT_OF_KINDS = "what each objective does: distill recipe objectives"


def load_recipe(
    path_or_name: str | os.PathLike[str] | Recipe, overrides: str | Sequence[str] | Mapping[str, Any] = ()
) -> Recipe:
    """Read a recipe from a file, or a bundled recipe by its name, with or without ``.yaml``.

    A file at that path takes precedence over a bundled recipe of that name.

    Args:
        path_or_name: A path, or a name from :func:`distill.recipe.bundled_recipes`.
        overrides: Changes: ``section.key=value``, one or several, or a dict of ``section.key`` to value.

    Raises:
        UsageError: Overrides for a recipe that is already loaded.
        RecipeError: No such recipe, or one line ``file:line: what`` for each mistake in it.

    Example:
        >>> recipe = load_recipe("r18_small", ["optim.lr=0.05", "train.epochs=30"])
        >>> recipe.optim.lr, recipe.objective.kind
        (0.05, 'kd')
    """
    changes = _changes(overrides)
    if isinstance(path_or_name, Recipe):
        if changes:
            raise UsageError(
                f"{path_or_name.name} is loaded: changes are made while a recipe is read",
                hint="load_recipe(path_or_name, changes), or apply_overrides(recipe, changes)",
            )
        return path_or_name
    path = _find(os.fspath(path_or_name))
    return parse_recipe(_read(path), source=str(path), overrides=changes)


def _changes(overrides: str | Sequence[str] | Mapping[str, Any]) -> tuple[str, ...]:
    if isinstance(overrides, Mapping):
        return tuple(f"{key}={json.dumps(value)}" for key, value in overrides.items())  # JSON is YAML
    return listed(overrides)


def parse_recipe(text: str, *, source: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe from text; ``source`` is the file that messages name.

    Raises:
        RecipeError: One line for every mistake, those of the file by line, then those of overrides.
    """
    return _parsed(text, source, tuple(overrides)).model_copy(deep=True)


@lru_cache(maxsize=_KEPT)
def _parsed(text: str, source: str, overrides: tuple[str, ...]) -> Recipe:
    """Kept, for all that reads a run asks it for its recipe."""
    tree = read_yaml(text)
    report = _Report(source, tree, overrides)
    for problem in tree.problems:
        report.add_line(problem.line, problem.text)
    sets = _parse_overrides(overrides, report)
    if not tree.fatal:
        recipe = _validate(tree, sets, report)
        if recipe is not None and not report.mistaken:
            return recipe
    message = report.message()
    raise RecipeError(message, hint=_HINT_OF_KINDS if "objective.kind: " in message else _HINT)


def check_text(recipe: Recipe) -> None:
    """Refuse a recipe whose text could not be read back, as where its teacher's path has control characters.

    Raises:
        UsageError: The message names the entry.
    """
    try:
        parse_recipe(dump_recipe(recipe), source=f"recipe {recipe.name}")
    except RecipeError as error:
        raise UsageError(error.message, hint="name a file or folder whose path is plain text") from error


class _Report:
    """Gathers the lines of one error message."""

    def __init__(self, source: str, tree: YamlTree, overrides: Sequence[str]) -> None:
        self._source = plain(source)
        self._tree = tree
        self._in_file: list[tuple[int, str]] = []
        self._overrides = list(overrides)
        self._in_overrides: list[tuple[int, str]] = []

    @property
    def mistaken(self) -> bool:
        return bool(self._in_file or self._in_overrides)

    def add_line(self, line: int, text: str) -> None:
        self._in_file.append((line, f"{self._source}:{line}: {plain(text)}"))

    def add_override(self, override: str, text: str) -> None:
        self._in_overrides.append((self._overrides.index(override), plain(text)))

    def add_in_file(self, mistake: Mistake) -> None:
        path = mistake.path
        if not path and mistake.mentions:  # between sections: where the first section it names is
            path = mistake.mentions[:1]
        while path not in self._tree.lines and path:
            path = path[:-1]
        key_line, value_line = self._tree.lines.get(path, (1, 1))
        self.add_line(value_line if mistake.at_value else key_line, mistake.text)

    def message(self) -> str:
        parts = (self._in_file, self._in_overrides)
        mistakes = [each for part in parts for each in sorted(part, key=lambda item: item[0])]
        lines = list(dict.fromkeys(text for _, text in mistakes))
        if len(lines) > MAX_MISTAKES:
            lines[MAX_MISTAKES:] = [f"{self._source}: and more; the first {MAX_MISTAKES} are above"]
        return "\n".join(lines)


def _parse_overrides(overrides: Sequence[str], report: _Report) -> list[Override]:
    sets = []
    for text in overrides:
        try:
            sets.append(parse_override(text))
        except OverrideError as error:
            report.add_override(text, str(error))
    return sets


def _validate(tree: YamlTree, sets: Sequence[Override], report: _Report) -> Recipe | None:
    if tree.empty:
        report.add_line(1, "empty; a recipe has at least name, role, data and model")
        return None
    if not isinstance(tree.value, dict) or tree.value is BROKEN:
        if not tree.problems:
            report.add_line(tree.lines[()][0], f"a recipe is a mapping of keys to values, got {show(tree.value)}")
        return None
    merged, problems = merge_overrides(tree.value, sets)
    for problem in problems:
        report.add_override(problem.text, str(problem))
    written = {path: text for path, text in tree.written.items() if override_at(sets, path) is None}
    result = check_tree(merged, written)
    if isinstance(result, Recipe):
        return result
    refused = {problem.path for problem in tree.problems if problem.path}
    mistakes = [mistake for mistake in result if not _lies_under(mistake, refused)]
    in_file = {_identity(mistake) for mistake in (_mistakes_of_file(tree) if sets else mistakes)}
    for mistake in mistakes:
        blamed = override_at(sets, mistake.path)
        if blamed is None and _identity(mistake) not in in_file:
            blamed = _blame(mistake, sets)
        if blamed is None:
            report.add_in_file(mistake)
        else:
            report.add_override(blamed.text, f"{blamed.label}: {mistake.text}")
    return None


def _blame(mistake: Mistake, sets: Sequence[Override]) -> Override | None:
    """The override that made the mistake, though it set another key: one below it, else one beside it, and so on up."""
    for length in range(len(mistake.path), -1, -1):
        blamed = override_below(sets, mistake.path[:length], mistake.mentions)
        if blamed is not None:
            return blamed
    return None


def _lies_under(mistake: Mistake, refused: set[tuple[str | int, ...]]) -> bool:
    """Whether the mistake is only that a value was refused while reading, which is told already."""
    return any(mistake.path[:length] in refused for length in range(1, len(mistake.path) + 1))


def _identity(mistake: Mistake) -> tuple[tuple[str | int, ...], str]:
    """A mistake without its advice, which may change with the variant that an override chose."""
    return mistake.path, mistake.text.split(" (")[0]


def _mistakes_of_file(tree: YamlTree) -> list[Mistake]:
    result = check_tree(tree.value, tree.written)
    return [] if isinstance(result, Recipe) else result


def _find(given: str) -> Path:
    if not given:
        raise RecipeError("no recipe named", hint="see them all: distill recipe list")
    path = Path(given)
    try:
        if path.is_file() or (path.exists() and not path.is_dir()):  # a pipe, as of <(...), is fine
            return path
        is_folder = path.is_dir()
    except (OSError, ValueError):  # a name too long, or with a NUL
        is_folder = False
    bundled = bundled_recipes()
    if strip_suffix(given) in bundled:
        return bundled[strip_suffix(given)]
    if is_folder:
        raise RecipeError(f"{given}: a folder, not a recipe file", hint="name the .yaml file in it")
    if beside := _with_suffix(given):
        return beside
    here = {strip_suffix(each.name): str(each) for each in _recipe_files(path.parent)}
    near = closest(strip_suffix(path.name), [*here, *bundled])
    near = here.get(near or "", near)
    meant = f" (did you mean '{near}'?)" if near else ""
    what = "no such file" if path.suffix in SUFFIXES or len(path.parts) > 1 else "no such recipe"
    raise RecipeError(
        f"{shorten(given)!r}: {what}, and no bundled recipe{meant}", hint="see them all: distill recipe list"
    )


def _recipe_files(folder: Path) -> list[Path]:
    """By their endings; none where it cannot be listed."""
    try:
        return sorted(each for each in folder.iterdir() if each.suffix in SUFFIXES)
    except (OSError, ValueError):
        return []


def _with_suffix(given: str) -> Path | None:
    """The file that ``given`` names without its ending."""
    try:
        return next((path for suffix in SUFFIXES if (path := Path(given + suffix)).is_file()), None)
    except (OSError, ValueError):  # a name too long, or with a NUL
        return None


def _read(path: Path) -> str:
    try:
        with open(path, "rb", opener=_open_written) as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise RecipeError(f"{path}: larger than {MAX_BYTES // 1_000_000} MB; this is no recipe")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise RecipeError(f"{path}:{line}: not UTF-8 text", hint="save the file as UTF-8") from None


def _open_written(path: str, flags: int) -> int:
    """A pipe is opened without waiting for whoever writes into it, who may never come."""
    handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    try:
        if stat.S_ISFIFO(os.fstat(handle).st_mode):
            if not select.select([handle], [], [], _PIPE_S)[0]:
                raise OSError(errno.EINVAL, f"a pipe that nobody has written into for {_PIPE_S:g} s")
            os.set_blocking(handle, True)
    except BaseException:
        os.close(handle)
        raise
    return handle
