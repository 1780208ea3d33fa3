"""What a frozen teacher is asked through: torch, or on a CPU ONNX Runtime, which answers faster."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from distill.models.fixed_batch import ask
from distill.models.onnx_network import OnnxNetwork
from distill.models.trained import Trained

__all__ = ["ONNXRUNTIME", "TORCH", "Forward", "disagreement", "forward_through"]

TORCH, ONNXRUNTIME = "torch", "onnxruntime"
Forward = Callable[[Tensor], Tensor]
"""Pixels ``(B, 3, S, S)`` in, float32 answers out: logits ``(B, C)``, or with D pooled features ``(B, C + D)``."""


def forward_through(trained: Trained, runtime: str, *, threads: int | None) -> Forward:
    """The teacher as ``runtime`` asks it.

    Raises:
        UsageError: Its network cannot be exported, or it answers in another precision than fp32 on a CPU.
    """
    return trained if runtime == TORCH else OnnxNetwork(trained, threads=threads)


def disagreement(trained: Trained, forward: Forward, pixels: Tensor) -> float:
    """The largest difference between its answers and torch's, as a share of the largest logit (1 at least)."""
    theirs = ask(trained, pixels)
    return float((ask(forward, pixels) - theirs).abs().max() / theirs.abs().max().clamp(min=1.0))
