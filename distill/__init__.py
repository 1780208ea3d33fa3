"""Distill a large image classifier into a small one, and prove what was kept.

Everything the command line does is one import away::

    from distill import compare, finetune_teacher, load_recipe, train_student

    teacher = finetune_teacher(load_recipe("resnet152_cifar10"))
    student = train_student(load_recipe("r18_small"))
    print(compare([teacher.run, student.run]).to_json())

Names are loaded when they are first used (PEP 562), so that importing distill does not import torch.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distill.comparison import compare
    from distill.errors import DistillError
    from distill.pipeline import (
        Options,
        RunResult,
        check_kernels,
        dry_run,
        export,
        finetune_teacher,
        quantize,
        quickstart,
        rerun,
        resume_run,
        train_student,
    )
    from distill.recipe import Recipe, dump_recipe, load_recipe
    from distill.report.catalogue import describe_model, list_models
    from distill.report.rows import Comparison, Row
    from distill.runs import list_runs, open_run
    from distill.sweeps import resume_sweep, sweep

    __version__: str

__all__ = [
    "Comparison",
    "DistillError",
    "Options",
    "Recipe",
    "Row",
    "RunResult",
    "__version__",
    "check_kernels",
    "compare",
    "describe_model",
    "dry_run",
    "dump_recipe",
    "export",
    "finetune_teacher",
    "list_models",
    "list_runs",
    "load_recipe",
    "open_run",
    "quantize",
    "quickstart",
    "rerun",
    "resume_run",
    "resume_sweep",
    "sweep",
    "train_student",
]


_HOMES = {
    "Comparison": "distill.report.rows",
    "check_kernels": "distill.pipeline",
    "compare": "distill.comparison",
    "DistillError": "distill.errors",
    "Options": "distill.pipeline",
    "Recipe": "distill.recipe",
    "Row": "distill.report.rows",
    "RunResult": "distill.pipeline",
    "describe_model": "distill.report.catalogue",
    "dry_run": "distill.pipeline",
    "dump_recipe": "distill.recipe",
    "export": "distill.pipeline",
    "finetune_teacher": "distill.pipeline",
    "list_models": "distill.report.catalogue",
    "list_runs": "distill.runs",
    "load_recipe": "distill.recipe",
    "open_run": "distill.runs",
    "quantize": "distill.pipeline",
    "quickstart": "distill.pipeline",
    "rerun": "distill.pipeline",
    "resume_run": "distill.pipeline",
    "resume_sweep": "distill.sweeps",
    "sweep": "distill.sweeps",
    "train_student": "distill.pipeline",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _version()
    elif name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    setattr(sys.modules[__name__], name, value)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("distill")
    except PackageNotFoundError:
        return "0+unknown"
