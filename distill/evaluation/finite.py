"""Answers that are no numbers: told with whose they are, before anything is worked out of them."""

from __future__ import annotations

from torch import Tensor

from distill.errors import RunError

__all__ = ["require_finite"]


def require_finite(logits: Tensor, place: str, *, on: str = "") -> None:
    """Refuse answers that are NaN or infinite.

    Args:
        logits: ``(N, C)``.
        place: Whose they are: a run's folder, a file.
        on: On which images, where that is not plain.

    Raises:
        RunError: Some are.
    """
    broken = int((~logits.isfinite()).any(dim=1).sum())
    if broken:
        where = f" {on}" if on else ""
        raise RunError(
            f"{place}: its logits are NaN or infinite for {broken} of {len(logits)} images{where}",
            hint="its training diverged (train again with a lower optim.lr, or with train.clip_norm), or it is damaged",
        )
