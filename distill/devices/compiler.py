"""Whether ``torch.compile`` can work on this machine: it writes C or C++ and has a compiler make something of it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sysconfig
from pathlib import Path

import torch

__all__ = ["why_not_compile"]

_OLDEST = (7, 0)  # compute capability that Triton writes code for


def why_not_compile(device: torch.device) -> str | None:
    """What is missing, in words; None where nothing is.

    Slim containers and cluster nodes often have no C compiler, or no header of Python, which Triton's launcher needs.
    """
    language, variable = ("C", "CC") if device.type == "cuda" else ("C++", "CXX")
    names = ("gcc", "clang") if device.type == "cuda" else ("g++", "clang++", "c++", "cl")
    if own := os.environ.get(variable):  # then no other is tried
        if not shutil.which(own):
            return f"${variable} names a compiler that is not here ({own})"
    elif not any(shutil.which(name) for name in names):
        return f"there is no {language} compiler ({', '.join(names[:2])})"
    if device.type != "cuda":
        return None
    folders = {
        sysconfig.get_path("include"),
        sysconfig.get_path("include", "posix_prefix"),
    }  # Debian's default is local
    if not any((Path(folder) / "Python.h").is_file() for folder in folders):
        return "Python's headers are missing (Python.h: the package python3-dev)"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    capability = torch.cuda.get_device_capability(device)
    if capability < _OLDEST:
        needed, has = (".".join(map(str, each)) for each in (_OLDEST, capability))
        return f"Triton needs compute capability {needed}, and this GPU has {has}"
    return None
