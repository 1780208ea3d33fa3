"""Importing this makes ``students`` and ``teachers`` the packages that were installed beside distill.

Their names are common ones: where the working directory has a folder ``students/`` of its own, ``python -m distill``
and notebooks would import that one, because the working directory comes first on Python's path.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

from distill.errors import MissingError

__all__ = ["load_sibling"]

_HOME = Path(__file__).resolve().parents[2]


def load_sibling(name: str, home: Path = _HOME) -> None:
    """Import the package ``name`` of the folder ``home``, whatever the working directory holds.

    Raises:
        MissingError: Another package of this name is imported already.
    """
    spec = PathFinder.find_spec(name, [str(home)])
    if spec is None or spec.loader is None:
        return  # installed in some other way: Python's own path decides
    if name in sys.modules:
        _refuse_another(sys.modules[name], Path(str(spec.origin)).parent)
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _refuse_another(module: ModuleType, own: Path) -> None:
    places = [Path(place).resolve() for place in getattr(module, "__path__", [])]
    if own.resolve() not in places:
        other = places[0] if places else getattr(module, "__file__", None) or "one without a file"
        raise MissingError(
            f"the package {module.__name__} that this process has imported is {other}, not distill's own in {own}",
            hint="rename that one, or use distill in a process that has not imported it",
        )


load_sibling("students")
load_sibling("teachers")
