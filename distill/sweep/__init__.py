"""Many runs of one recipe: grids, repeated seeds, and searches by Optuna. The test set has no say in any of them."""

from __future__ import annotations

from distill.report.sweeps import SweepReport, TrialRow
from distill.sweep.trainer import PrunedTrial
from distill.sweep.verbs import resume_sweep, sweep

__all__ = ["PrunedTrial", "SweepReport", "TrialRow", "resume_sweep", "sweep"]
