"""Code of the user's own that a recipe names: it runs with leave alone, or where Python handed the object over.

``package.module:NAME`` is imported as Python would from the current folder; ``FILE.py:NAME`` is read from the file.
A name alone is what an installed package offers through its entry points: installing it was the leave.
This is the only place that turns a recipe's text into code.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import itertools
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from distill.errors import MissingError, UsageError
from distill.files import relative, sha256_file
from distill.text import several

__all__ = [
    "Offered",
    "allow_code",
    "call_code",
    "code_is_allowed",
    "code_sha256",
    "find_code",
    "import_path_of",
    "is_handed_over",
    "list_offered",
    "needs_allow_code",
    "offer_as",
    "offer_code",
    "told",
]

# In the environment, so that the processes of a run have them too.
_LEAVE = "DISTILL_ALLOW_CODE"
_LEAVE_OF = "DISTILL_ALLOW_CODE_OF"  # references, a line each
_MEND = "mend its code, or the options that it is given"
_HANDED_OVER = "handed_over"
_GROUPS = {  # entry points that a key of a recipe looks into
    "model.name": ("distill.students", "distill.teachers"),
    "objective.name": ("distill.objectives",),
    "data.code": ("distill.data",),
}
_offered: dict[str, Any] = {}


@dataclass(frozen=True)
class Offered:
    """What an installed package offers to recipes, under a name.

    Attributes:
        role: ``student``, ``teacher``, ``objective`` or ``data``.
        origin: The package and its version.
    """

    name: str
    role: str
    origin: str


def list_offered() -> tuple[Offered, ...]:
    """What installed packages offer; none of it is imported."""
    found = []
    for group in dict.fromkeys(group for groups in _GROUPS.values() for group in groups):
        role = group.removeprefix("distill.").removesuffix("s")
        found += [Offered(each.name, role, _origin(each)) for each in entry_points(group=group)]
    return tuple(sorted(set(found), key=lambda each: (each.role, each.name, each.origin)))


def allow_code() -> None:
    """Let recipes run the code that they name from here on, in this process and in those that it starts.

    Example:
        >>> allow_code()  # read it first
    """
    os.environ[_LEAVE] = "1"


def code_is_allowed(reference: str) -> bool:
    """Whether a recipe may run this code; what an installed package offers needs no leave."""
    return (
        ":" not in reference or os.environ.get(_LEAVE) == "1" or reference in os.environ.get(_LEAVE_OF, "").splitlines()
    )


def needs_allow_code(named: Sequence[str]) -> bool:
    """Whether a command that goes on with this needs ``--allow-code``: it names code, or had leave for a teacher's."""
    return bool(named) or os.environ.get(_LEAVE) == "1"


def offer_code(thing: Any) -> str:
    """Hand an object over; returns what names it in a recipe. Here, and in processes begun here, that is the leave."""
    plain = import_path_of(thing)
    numbered = (f"{plain}_{number}" for number in itertools.count(2))
    reference = next(each for each in itertools.chain([plain], numbered) if _offered.get(each, thing) is thing)
    _offered[reference] = thing
    given = os.environ.get(_LEAVE_OF, "").splitlines()
    os.environ[_LEAVE_OF] = "\n".join(dict.fromkeys([*given, reference]))
    return reference


def offer_as(name: str, thing: Any) -> str:
    """Hand over what no file makes again, as arrays; returns what names it in a recipe, to this process alone."""
    reference = f"{_HANDED_OVER}:{name}"
    _offered[reference] = thing
    return reference


def is_handed_over(reference: str) -> bool:
    """Whether this names something that a process once had in memory, and no code."""
    return reference.startswith(f"{_HANDED_OVER}:")


def import_path_of(thing: Any) -> str:
    """``module:NAME`` of a function, a class, or an object's class; of a script's, ``FILE.py:NAME``."""
    named = _named(thing)
    home = named.__module__
    if home == "__main__":
        file = getattr(sys.modules["__main__"], "__file__", None)
        home = "__main__" if file is None else relative(file)
    name = named.__qualname__.replace("<", "_").replace(">", "_")  # of what is local, or has no name
    return f"{home}:{name}"


def _named(thing: Any) -> Any:
    """A function or a class itself; of another object its class."""
    return thing if hasattr(thing, "__qualname__") else type(thing)


def find_code(reference: str, *, key: str) -> Any:
    """The object that a recipe names.

    Args:
        key: Of the recipe, for messages.

    Raises:
        UsageError: Nobody gave leave, or importing it raised.
        MissingError: There is no such module, file, or name in it; or it was in the memory of another process.
    """
    if reference in _offered:
        return _offered[reference]
    if is_handed_over(reference):
        raise MissingError(
            f"{key}: {reference.partition(':')[2]} was handed over from Python, in a process that is gone",
            hint="hand it over again, in Python: distill.offer_data(DATA); or name a function that makes it",
        )
    if ":" not in reference:
        return _from_package(reference, key)
    home, _, name = reference.rpartition(":")
    if not code_is_allowed(reference):
        raise UsageError(
            f"{key}: {reference} would run code: {_place(home)}",
            hint="read it first; --allow-code (in Python: distill.allow_code()) then lets it run",
        )
    found: Any = _loaded(home, key)
    for part in name.split("."):
        if not hasattr(found, part):
            raise UsageError(f"{key}: {_place(home)} has no {name}", hint=_what_it_has(found))
        found = getattr(found, part)
    return found


def _what_it_has(home: Any) -> str:
    """The names that a module itself defines and a recipe can mean."""
    own = [name for name, each in vars(home).items() if callable(each) and not name.startswith("_")]
    own = [name for name in own if getattr(getattr(home, name), "__module__", None) == getattr(home, "__name__", "")]
    return f"it has {several(own, 8)}" if own else "MODULE:NAME, or FILE.py:NAME"


def _from_package(name: str, key: str) -> Any:
    groups = _GROUPS[key]
    found = {each.value: each for group in groups for each in entry_points(group=group) if each.name == name}
    if not found:
        raise MissingError(
            f"{key}: no installed package offers {name} ({', '.join(groups)})",
            hint="distill models lists what is offered; code of your own is MODULE:NAME, or FILE.py:NAME",
        )
    if len(found) > 1:
        raise UsageError(
            f"{key}: several packages offer {name}: {', '.join(map(_origin, found.values()))}",
            hint=f"say which one, with --allow-code: {' or '.join(found)}",
        )
    (entry,) = found.values()
    try:
        return entry.load()
    except Exception as error:
        raise MissingError(
            f"{key}: {name} of {_origin(entry)} cannot be imported: {told(error)}",
            hint="repair that package, or ask who made it; distill itself is fine",
        ) from error


def _origin(entry: EntryPoint) -> str:
    return "a package without a name" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"


def call_code(thing: Callable[..., Any], reference: str, key: str, /, **arguments: Any) -> Any:
    """Call it; what it raises is told in one line, with the place in its own file.

    Its own parameters are by position, so that ``arguments`` may have any name.

    Raises:
        UsageError: It raised.
    """
    try:
        return thing(**arguments)
    except (Exception, SystemExit) as error:  # else an exit(0) in it would end everything as if all were well
        raise UsageError(f"{key}: {reference} raised {told(error)}", hint=_MEND) from error


def code_sha256(reference: str, thing: Any) -> str | None:
    """Hex sha256 of the file that an object is written in; None where it is in none, as in a notebook."""
    file = _file_of(thing)
    if file is None and reference.rpartition(":")[0].endswith(".py"):
        file = reference.rpartition(":")[0]
    return None if file is None or not os.path.isfile(file) else sha256_file(Path(file))


def _file_of(thing: Any) -> str | None:
    try:
        return inspect.getsourcefile(_named(thing))
    except (TypeError, OSError):
        return None


def _place(home: str) -> str:
    """The file that would run, where it can be told without running anything."""
    if home.endswith(".py"):
        return str(Path(home).resolve())
    beside = Path(*home.split("."))
    files = [beside.with_suffix(".py"), beside / "__init__.py"]
    return next((str(file.resolve()) for file in files if file.is_file()), f"the module {home}")


def _loaded(home: str, key: str) -> ModuleType:
    try:
        return _from_file(Path(home)) if home.endswith(".py") else _imported(home)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{home}.".startswith(f"{error.name}."):  # itself, or the package that it is in
            hint = "modules are looked for in the current folder first; or FILE.py:NAME"
            raise MissingError(f"{key}: no module {error.name}", hint=hint) from error
        hint = "it is looked for beside that file and in the current folder, and among what is installed"
        raise MissingError(f"{key}: {home} imports {error.name}, and there is no such module", hint=hint) from error
    except FileNotFoundError as error:
        raise MissingError(f"{key}: no file {home}", hint="paths start at the current folder") from error
    except (Exception, SystemExit) as error:
        raise UsageError(f"{key}: importing {home} raised {told(error)}", hint=_MEND) from error


def _imported(name: str) -> ModuleType:
    _look_in(os.getcwd())  # a console script begins in its own folder
    return importlib.import_module(name)


def _look_in(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)


def _from_file(path: Path) -> ModuleType:
    name = f"distill_own_{path.resolve().stem}"
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) == str(path.resolve()):
        return known
    if not path.is_file():
        raise FileNotFoundError(path)
    _look_in(os.getcwd())
    _look_in(str(path.resolve().parent))  # as Python does for a script
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def told(error: BaseException) -> str:
    """Type, first line, and the innermost place outside the libraries."""
    text = (str(error).strip() or "without a word").splitlines()[0][:160]
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    own = [frame for frame in frames if not frame.filename.startswith((_HOME, "<frozen"))]
    where = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {text}{where}"


_HOME = str(Path(__file__).parent)
