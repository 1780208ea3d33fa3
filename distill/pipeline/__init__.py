"""The verbs: they join the rooms below them."""

from __future__ import annotations

from distill.pipeline.context import Options
from distill.pipeline.dryrun import DryRun, dry_run
from distill.pipeline.verbs import (
    QuickstartResult,
    RerunResult,
    finetune_teacher,
    quickstart,
    rerun,
    resume_run,
    train_student,
)
from distill.pipeline.worker import RunResult

__all__ = [
    "DryRun",
    "Options",
    "QuickstartResult",
    "RerunResult",
    "RunResult",
    "dry_run",
    "finetune_teacher",
    "quickstart",
    "rerun",
    "resume_run",
    "train_student",
]
