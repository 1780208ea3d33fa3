"""The verbs: they join the rooms below them."""

from __future__ import annotations

from distill.compression.results import Compressed, Exported, Imported, Pruned, Quantized, Soup
from distill.pipeline.banks import build_bank, build_banks, clear_banks, list_banks
from distill.pipeline.compress import compress
from distill.pipeline.context import Options
from distill.pipeline.dryrun import dry_run
from distill.pipeline.evaluate import evaluate_run, evaluate_runs
from distill.pipeline.export import export
from distill.pipeline.generations import Generations, train_generations
from distill.pipeline.import_weights import import_weights
from distill.pipeline.kernels import check_kernels
from distill.pipeline.page import write_page
from distill.pipeline.predict import Predictions, predict
from distill.pipeline.prune import prune
from distill.pipeline.quantize import quantize
from distill.pipeline.quickstart import QuickstartResult, quickstart
from distill.pipeline.several_seeds import train_seeds
from distill.pipeline.soup import soup
from distill.pipeline.verbs import RerunResult, finetune_teacher, rerun, resume_run, train_student
from distill.pipeline.verify import verify_banks
from distill.results.rows import DryRun
from distill.results.runs import RunResult

__all__ = [
    "Compressed",
    "DryRun",
    "Exported",
    "Generations",
    "Imported",
    "Options",
    "Predictions",
    "Pruned",
    "Quantized",
    "QuickstartResult",
    "RerunResult",
    "RunResult",
    "Soup",
    "build_bank",
    "build_banks",
    "check_kernels",
    "clear_banks",
    "compress",
    "dry_run",
    "evaluate_run",
    "evaluate_runs",
    "export",
    "finetune_teacher",
    "import_weights",
    "list_banks",
    "predict",
    "prune",
    "quantize",
    "quickstart",
    "rerun",
    "resume_run",
    "soup",
    "train_generations",
    "train_seeds",
    "train_student",
    "verify_banks",
    "write_page",
]
