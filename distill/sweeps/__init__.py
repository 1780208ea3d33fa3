"""Many runs of one recipe: grids, repeated seeds, and searches by Optuna. The test set has no say in any of them."""

from __future__ import annotations

from distill.results.sweeps import SweepReport, TrialRow
from distill.sweeps.trainer import PrunedTrial
from distill.sweeps.verbs import resume_sweep, sweep

__all__ = ["PrunedTrial", "SweepReport", "TrialRow", "resume_sweep", "sweep"]
