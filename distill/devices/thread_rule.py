"""How many threads a network's layers give enough to do: a rule, not a probe, so that a run repeats.

What it stands on is measured: docs/results/threads.md, ``python -m benchmarks.threads``.
"""

from __future__ import annotations

import torch

from distill.team.cores import usable_cores

__all__ = ["MACS_A_THREAD", "threads_at_most", "threads_for"]

#: Multiply-accumulates of one layer's forward pass that are worth a thread. Threads meet at the end of every operation;
#: with less to do than this between two meetings they wait for each other more than they work, and where another
#: program takes a core from one of them, all wait for it.
MACS_A_THREAD = 50_000_000


def threads_at_most(processes: int) -> int:
    """The threads of each of so many processes on this machine: torch's choice, or a fair share of the cores."""
    if processes == 1:
        return torch.get_num_threads()
    return min(torch.get_num_threads(), max(1, usable_cores() // processes))


def threads_for(macs_a_layer: float, *, at_most: int) -> int:
    """Threads for layers of so many multiply-accumulates in the forward pass of one batch.

    >>> threads_for(2e6, at_most=8), threads_for(260e6, at_most=8), threads_for(260e6, at_most=2)
    (1, 5, 2)
    """
    return max(1, min(at_most, int(macs_a_layer // MACS_A_THREAD)))
