"""Test metrics of a classifier from its logits, by torchmetrics."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.errors import DataError
from distill.evaluation.confidence import BINS
from distill.evaluation.finite import require_finite
from distill.results.metrics import EvalResult, PerClass

__all__ = ["evaluate_logits", "predict_logits"]

TOP5_MIN_CLASSES = 10  # among fewer classes, five guesses are nearly always right


def predict_logits(forward: Callable[[Tensor], Tensor], batches: Iterable[Tensor]) -> Tensor:
    """Logits of all images, in order, without gradients; one copy to the CPU, after the last batch.

    Args:
        forward: From a batch of images to its logits: normalisation and the model, in eval mode.
        batches: Images on the device where ``forward`` wants them.

    Shapes:
        returns: ``(N, C)`` float32 on the CPU.

    Raises:
        DataError: There were no batches.
    """
    collected = []
    with torch.inference_mode():
        for batch in batches:
            logits = forward(batch)
            # copied, since a compiled model may write its next answer into the same memory
            collected.append(logits.to(torch.float32, copy=True))
    if not collected:
        raise DataError("there are no images to predict")
    return torch.cat(collected).cpu()  # outside inference mode, so that the result may enter a loss


def evaluate_logits(logits: Tensor, labels: Tensor, classes: Sequence[str], *, place: str = "the model") -> EvalResult:
    """All test metrics.

    Args:
        place: Whose logits they are, for messages.

    Shapes:
        logits: ``(N, C)`` float.
        labels: ``(N,)`` int64, from 0 to C - 1.
        classes: C names.

    Raises:
        DataError: There are no images.
        RunError: Some logits are NaN or infinite.
        ValueError: The shapes do not fit each other, or a label is out of range.
    """
    logits, labels = logits.detach().float().cpu(), torch.as_tensor(labels).cpu()
    _check(logits, labels, len(classes), place)
    with _torchmetrics_counts_on_the_cpu():
        confusion = _torchmetrics().multiclass_confusion_matrix(logits, labels, len(classes), validate_args=False)
        macro = _precision_recall_f1(logits, labels, average="macro")
        return EvalResult(
            top1=int(confusion.diagonal().sum()) / len(labels),  # exact: equal counts must compare as equal
            top5=_top5(logits, labels),
            macro_precision=_number(macro[0]),
            macro_recall=_number(macro[1]),
            macro_f1=_number(macro[2]),
            nll=F.cross_entropy(logits.double(), labels).item(),
            ece=_calibration_error(logits, labels),
            n=len(labels),
            per_class=_per_class(logits, labels, classes),
            confusion=tuple(tuple(row) for row in confusion.tolist()),
        )


def _check(logits: Tensor, labels: Tensor, num_classes: int, place: str) -> None:
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or logits.shape[1] != num_classes:
        shapes = f"logits {tuple(logits.shape)}, labels {tuple(labels.shape)}, {num_classes} class names"
        raise ValueError(f"shapes do not fit: {shapes}")
    if len(labels) == 0:
        raise DataError("there are no images to evaluate")
    if int(labels.min()) < 0 or int(labels.max()) >= num_classes:
        raise ValueError(
            f"labels run from {int(labels.min())} to {int(labels.max())}, classes from 0 to {num_classes - 1}"
        )
    require_finite(logits, place)


def _torchmetrics() -> Any:
    from torchmetrics.functional import classification  # takes as long to import as torch; training needs none of it

    return classification


@contextlib.contextmanager
def _torchmetrics_counts_on_the_cpu() -> Iterator[None]:
    """Suspend deterministic mode: under it torchmetrics counts by an ``(N, C * C)`` table, 800 MB for CIFAR-100.

    On the CPU every operation used here is deterministic anyway.
    """
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)


def _precision_recall_f1(logits: Tensor, labels: Tensor, *, average: Literal["macro"] | None) -> list[Tensor]:
    counted = _torchmetrics()
    metrics = (counted.multiclass_precision, counted.multiclass_recall, counted.multiclass_f1_score)
    return [metric(logits, labels, logits.shape[1], average=average, validate_args=False) for metric in metrics]


def _top5(logits: Tensor, labels: Tensor) -> float | None:
    if logits.shape[1] < TOP5_MIN_CLASSES:
        return None
    # From logits: probabilities of several classes may underflow to the same zero.
    classes = logits.shape[1]
    share = _torchmetrics().multiclass_accuracy(logits, labels, classes, average="micro", top_k=5, validate_args=False)
    return round(share.item() * len(labels)) / len(labels)  # float32's rounding undone


def _calibration_error(logits: Tensor, labels: Tensor) -> float:
    # torchmetrics takes logits for probabilities by their range, so it gets probabilities; and it would put those of
    # exactly 1 into a sixteenth bin of their own.
    below_one = 1.0 - torch.finfo(torch.float32).eps / 2
    probabilities = logits.softmax(dim=1).clamp(max=below_one)
    error = _torchmetrics().multiclass_calibration_error(
        probabilities, labels, logits.shape[1], n_bins=BINS, norm="l1", validate_args=False
    )
    return _number(error)


def _per_class(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> tuple[PerClass, ...]:
    columns = _precision_recall_f1(logits, labels, average=None)
    counts = labels.bincount(minlength=len(classes)).tolist()
    precision, recall, f1 = ([_number(value) for value in column] for column in columns)
    accuracy = recall  # of a class it is the same
    return tuple(map(PerClass, classes, precision, recall, f1, accuracy, counts))


def _number(value: Tensor) -> float:
    """A float32 scalar at the seven digits it carries: 0.9, not 0.8999999761581421."""
    return float(f"{value.item():.7g}")
