"""Lookahead by timm, with three kernels for all parameters where timm's has three for each of them."""

from __future__ import annotations

from typing import Any

import torch
from timm.optim import Lookahead
from torch import Tensor
from torch.optim import Optimizer

__all__ = ["ManyLookahead", "pull_to_slow"]


class ManyLookahead(Lookahead):
    """timm's, with the same arithmetic."""

    def __init__(self, base: Optimizer, *, alpha: float, k: int) -> None:
        super().__init__(base, alpha=alpha, k=k)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def update_slow(self, group: dict[str, Any]) -> None:
        """Move the slow weights of a group towards the fast ones, and the fast ones there."""
        fast = [each for each in group["params"] if each.grad is not None]
        states = [self._base_optimizer.state[each] for each in fast]
        for weights, state in zip(fast, states, strict=True):
            if "lookahead_slow_buff" not in state:
                state["lookahead_slow_buff"] = weights.detach().clone()
        pull_to_slow(fast, [state["lookahead_slow_buff"] for state in states], alpha=group["lookahead_alpha"])


@torch.no_grad()
def pull_to_slow(fast: list[Tensor], slow: list[Tensor], *, alpha: float) -> None:
    """``slow += alpha * (fast - slow)``, and ``fast`` becomes it."""
    if fast:
        torch._foreach_add_(slow, torch._foreach_sub(fast, slow), alpha=alpha)
        torch._foreach_copy_(fast, slow)
