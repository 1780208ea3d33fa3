"""What this machine has and lacks. Reads, and changes nothing; nothing here may fail for want of something."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from distill.files import expanded
from distill.results.rows import Check
from distill.runs import own_commit
from distill.text import counted, first_line

__all__ = ["examine"]

_OLDEST_PYTHON = (3, 11)
_IMPORTED = ("torch", "torchvision", "timm")  # compiled against each other: installed does not mean that they load
_INSTALLED = (
    "torchmetrics",
    "rich",
    "typer",
    "pydantic",
    "ruamel.yaml",
    "safetensors",
    "matplotlib",
    "jinja2",
    "scikit-learn",
    "lightning-fabric",
    "onnx",
    "onnxscript",
    "onnxruntime",
)
_CIFAR = {"cifar10": ("cifar-10-batches-py", "cifar-10-python.tar.gz"), "cifar100": ("cifar-100-python",) * 2}
_REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+).*extra\s*==\s*['\"]([A-Za-z0-9._-]+)['\"]")
_NOT_FEATURES = ("all", "test", "bench", "dev", "docs")


def examine(*, data_root: Path, runs_dir: Path) -> list[Check]:
    """Look at versions, devices, data, weights, and optional packages.

    Args:
        data_root: Where recipes' ``data.root`` points.
        runs_dir: The folder of all runs.
    """
    return [*_core(), *_devices(), *_data(data_root, runs_dir), *_weights(), *_extras()]


def _core() -> Iterator[Check]:
    python = sys.version_info[:2] >= _OLDEST_PYTHON
    fix = None if python else "python 3.11 or newer"
    yield Check("core", "python", "ok" if python else "broken", f"{platform.python_version()} at {sys.executable}", fix)
    own, commit = _version("distill") or "run from its source, not installed", own_commit()
    yield Check("core", "distill", "ok", own + (f", commit {commit}" if commit else ""))
    for name in _IMPORTED:
        yield _loads(name)
    for name in _INSTALLED:
        version = _version(name)
        fix = None if version else f"python -m pip install {name}"
        yield Check("core", name, "ok" if version else "broken", version or "not installed", fix)


def _loads(name: str) -> Check:
    try:
        module = importlib.import_module(name)
    except Exception as error:  # a library built for another one fails in its own way
        reason = first_line(error)
        fix = f"python -m pip install -U {' '.join(_IMPORTED)}"
        return Check("core", name, "broken", f"does not load: {reason}", fix)
    return Check("core", name, "ok", str(getattr(module, "__version__", "")))


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> Iterator[Check]:
    try:
        import torch

        from distill.devices import describe_device, threads
    except Exception:  # told above
        return
    used = f"{counted(threads(), 'thread')} an operation"
    yield Check("devices", "cpu", "ok", f"{describe_device(torch.device('cpu'))}, {used}")
    for number in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(number).total_memory / 1e9
        yield Check("devices", f"cuda:{number}", "ok", f"{torch.cuda.get_device_name(number)}, {memory:.0f} GB")
    if torch.cuda.device_count() == 0:
        built = torch.version.cuda or torch.version.hip
        why = "no GPU that torch can use" if built else f"torch {torch.__version__} is built without CUDA"
        yield Check("devices", "cuda", "absent", why)
    if torch.backends.mps.is_available():
        yield Check("devices", "mps", "ok", describe_device(torch.device("mps")))


def _data(root: Path, runs_dir: Path) -> Iterator[Check]:
    yield Check("data", "digits", "ok", "comes with scikit-learn")
    for name, (folder, archive) in _CIFAR.items():
        path = next((root / each for each in (folder, archive) if (root / each).exists()), None)
        if path is None:
            fix = "the first run downloads it; or say where it is: --set data.root=DIR"
            yield Check("data", name, "absent", f"not in {root}", fix)
        else:
            yield Check("data", name, "ok", str(path))
    cache = expanded(os.environ.get("DISTILL_CACHE") or "~/.cache/distill")
    sets = len(list((cache / "arrays").glob("[!.]*"))) if cache.is_dir() else 0
    yield Check("data", "decoded", "ok" if sets else "absent", f"{sets or 'no'} data sets in {cache}")
    yield _runs(runs_dir)


def _runs(runs_dir: Path) -> Check:
    try:
        from distill.runs import list_runs

        count = len(list_runs(runs_dir))
    except Exception as error:
        return Check("data", "runs", "absent", f"{runs_dir}: {first_line(error)}")
    if count == 0:
        return Check("data", "runs", "absent", f"none below {runs_dir}", "distill quickstart")
    return Check("data", "runs", "ok", f"{count} below {runs_dir}")


def _weights() -> Iterator[Check]:
    home = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    cache = expanded(os.environ.get("HF_HUB_CACHE") or home / "hub")
    names = sorted(path.name.removeprefix("models--timm--") for path in cache.glob("models--timm--*"))
    if names:
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        yield Check("weights", "timm", "ok", f"{shown} in {cache}")
    else:
        yield Check("weights", "timm", "absent", f"none in {cache}", "the first run that needs them downloads them")


def _extras() -> Iterator[Check]:
    try:
        requirements = importlib.metadata.requires("distill") or []
    except importlib.metadata.PackageNotFoundError:
        return
    for line in requirements:
        match = _REQUIREMENT.match(line)
        if match is None or match[2] in _NOT_FEATURES or match[1] == "distill":
            continue
        package, extra = match[1], match[2]
        version = _version(package)
        fix = None if version else f"python -m pip install {package}"
        yield Check("optional", package, "ok" if version else "absent", version or f"of the extra {extra!r}", fix)
