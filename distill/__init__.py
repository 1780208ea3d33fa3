"""Distill a large image classifier into a small one, and measure what was kept.

Everything the command line does is one import away::

    from distill import compare, finetune_teacher, train_student

    teacher = finetune_teacher("resnet152_cifar10")
    student = train_student("r18_small", teacher=teacher)
    print(compare([teacher, student]))

Names are loaded when they are first used (PEP 562), so that importing distill does not import torch.
"""

from __future__ import annotations

import importlib
import sys

TYPE_CHECKING = False  # not typing's: loading that takes a while, and nobody listens to signals yet

if TYPE_CHECKING:
    from typing import Any

    from distill.certificate import certify, verify_file, write_kit
    from distill.cli.progress import ProgressPrinter
    from distill.code import allow_code
    from distill.comparison import compare
    from distill.data.own import offer_data
    from distill.errors import DistillError
    from distill.models.open import load_model
    from distill.pipeline import (
        Options,
        RunResult,
        build_bank,
        build_banks,
        check_kernels,
        clear_banks,
        dry_run,
        evaluate_runs,
        finetune_teacher,
        list_banks,
        rerun,
        resume_run,
        train_student,
        verify_banks,
    )
    from distill.pipeline import evaluate_run as evaluate
    from distill.pipeline.card import model_card, write_card
    from distill.pipeline.compress import compress
    from distill.pipeline.export import export
    from distill.pipeline.generations import train_generations
    from distill.pipeline.import_weights import import_weights
    from distill.pipeline.page import write_page
    from distill.pipeline.predict import predict
    from distill.pipeline.prune import prune
    from distill.pipeline.quantize import quantize
    from distill.pipeline.quickstart import quickstart
    from distill.pipeline.several_seeds import train_seeds
    from distill.pipeline.similarity import similarity
    from distill.pipeline.soup import soup
    from distill.recipe import Recipe, dump_recipe, load_recipe
    from distill.report.catalogue import describe_model, list_models
    from distill.results.rows import Comparison, Row
    from distill.runs import list_runs, open_run
    from distill.searches import SearchReport, search
    from distill.sweeps import resume_sweep, sweep

    __version__: str

__all__ = [
    "Comparison",
    "DistillError",
    "Options",
    "ProgressPrinter",
    "Recipe",
    "Row",
    "RunResult",
    "SearchReport",
    "__version__",
    "allow_code",
    "build_bank",
    "build_banks",
    "certify",
    "check_kernels",
    "clear_banks",
    "compare",
    "compress",
    "describe_model",
    "dry_run",
    "dump_recipe",
    "evaluate",
    "evaluate_runs",
    "export",
    "finetune_teacher",
    "import_weights",
    "list_banks",
    "list_models",
    "list_runs",
    "load_model",
    "load_recipe",
    "model_card",
    "offer_data",
    "open_run",
    "predict",
    "prune",
    "quantize",
    "quickstart",
    "rerun",
    "resume_run",
    "resume_sweep",
    "search",
    "similarity",
    "soup",
    "sweep",
    "train_generations",
    "train_seeds",
    "train_student",
    "verify_banks",
    "verify_file",
    "write_card",
    "write_kit",
    "write_page",
]


_HOMES = {  # name -> module, or module:name where it is called otherwise there
    "allow_code": "distill.code",
    "Comparison": "distill.results.rows",
    "certify": "distill.certificate",
    "check_kernels": "distill.pipeline",
    "compare": "distill.comparison",
    "compress": "distill.pipeline",
    "DistillError": "distill.errors",
    "Options": "distill.pipeline",
    "ProgressPrinter": "distill.cli.progress",
    "Recipe": "distill.recipe",
    "Row": "distill.results.rows",
    "RunResult": "distill.pipeline",
    "SearchReport": "distill.results.search",
    "build_bank": "distill.pipeline",
    "build_banks": "distill.pipeline",
    "clear_banks": "distill.pipeline",
    "describe_model": "distill.report.catalogue",
    "dry_run": "distill.pipeline",
    "dump_recipe": "distill.recipe",
    "evaluate": "distill.pipeline:evaluate_run",
    "evaluate_runs": "distill.pipeline",
    "export": "distill.pipeline",
    "finetune_teacher": "distill.pipeline",
    "import_weights": "distill.pipeline",
    "list_banks": "distill.pipeline",
    "list_models": "distill.report.catalogue",
    "list_runs": "distill.runs",
    "load_model": "distill.models.open",
    "load_recipe": "distill.recipe",
    "model_card": "distill.pipeline.card",
    "offer_data": "distill.data.own",
    "open_run": "distill.runs",
    "predict": "distill.pipeline",
    "prune": "distill.pipeline",
    "quantize": "distill.pipeline",
    "quickstart": "distill.pipeline",
    "rerun": "distill.pipeline",
    "resume_run": "distill.pipeline",
    "resume_sweep": "distill.sweeps",
    "search": "distill.searches",
    "similarity": "distill.pipeline.similarity",
    "soup": "distill.pipeline",
    "sweep": "distill.sweeps",
    "train_generations": "distill.pipeline",
    "train_seeds": "distill.pipeline",
    "train_student": "distill.pipeline",
    "verify_banks": "distill.pipeline",
    "verify_file": "distill.certificate",
    "write_card": "distill.pipeline.card",
    "write_kit": "distill.certificate",
    "write_page": "distill.pipeline",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _version()
    elif name in _HOMES:
        home, _, inner = _HOMES[name].partition(":")
        value = getattr(importlib.import_module(home), inner or name)
        _show_progress_in_a_notebook()
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    setattr(sys.modules[__name__], name, value)
    return value


def _show_progress_in_a_notebook() -> None:
    """Where nobody else would: a cell that is silent for an hour looks dead. A script stays silent."""
    ipython = sys.modules.get("IPython")
    if hasattr(ipython and ipython.get_ipython(), "kernel"):  # a shell in a terminal has none
        from distill.cli.progress import ProgressPrinter
        from distill.events import default_listener, listen_by_default

        if default_listener() is None:
            listen_by_default(ProgressPrinter())


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("distill")
    except PackageNotFoundError:
        return "0+unknown"
