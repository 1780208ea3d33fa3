"""Tables of one model's answers: metrics, classes, confusion, predictions of single pictures."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from distill.report.layout import Column, key_values, stacked
from distill.results.rows import Evaluation, Prediction
from distill.text import count, csv_text, cut, fixed, percent, plain

__all__ = ["evaluation_table", "predictions_csv", "predictions_table"]

_MOST_CLASSES = 20  # a larger confusion matrix is a picture


def evaluation_table(evaluation: Evaluation, width: int) -> RenderableType:
    """Metrics over all images, then by class, then which classes are taken for which."""
    result = evaluation.result
    parts: list[RenderableType] = [_metrics(evaluation), Text(), _classes(evaluation, width), Text()]
    if len(result.per_class) <= _MOST_CLASSES:
        head = Text("confusion: true class down, predicted class across", style="bold")
        parts += [head, Text(), _confusion(evaluation, width)]
    else:
        parts += [Text("most frequent confusions", style="bold"), Text(), _worst_pairs(evaluation, width)]
    return Group(*parts)


def _metrics(evaluation: Evaluation) -> RenderableType:
    result = evaluation.result
    pairs = [
        ("run", evaluation.run),
        ("split", f"{evaluation.split}, {count(result.n)} images"),
        ("test-time augmentation", "" if evaluation.tta == "none" else f"{evaluation.tta}: not the run's own figures"),
        ("top-1", f"{percent(result.top1)} %"),
        ("top-5", "" if result.top5 is None else f"{percent(result.top5)} %"),
        ("macro precision", f"{percent(result.macro_precision)} %"),
        ("macro recall", f"{percent(result.macro_recall)} %"),
        ("balanced accuracy", f"{percent(result.balanced_accuracy)} %"),
        ("macro F1", f"{percent(result.macro_f1)} %"),
        ("NLL", fixed(result.nll, 4)),
        ("ECE", f"{percent(result.ece)} %"),
    ]
    return key_values([pair for pair in pairs if pair[1]])


def _classes(evaluation: Evaluation, width: int) -> RenderableType:
    classes = evaluation.result.per_class
    columns = [
        Column("class", [each.label for each in classes], words=True, style="bold"),
        Column("precision\n%", [percent(each.precision) for each in classes]),
        Column("recall\n%", [percent(each.recall) for each in classes]),
        Column("F1\n%", [percent(each.f1) for each in classes]),
        Column("accuracy\n%", [percent(each.accuracy) for each in classes]),
        Column("images", [count(each.n) for each in classes]),
    ]
    return stacked(columns, width)


def _confusion(evaluation: Evaluation, width: int) -> RenderableType:
    labels = [each.label for each in evaluation.result.per_class]
    matrix = evaluation.result.confusion
    columns = [Column("", labels, words=True, style="bold")]
    for place, label in enumerate(labels):
        columns.append(Column(cut(plain(label), 12), [count(row[place]) for row in matrix]))
    return stacked(columns, width)


def _worst_pairs(evaluation: Evaluation, width: int) -> RenderableType:
    worst = evaluation.result.top_confusions()
    columns = [
        Column("true class", [each.label for each in worst], words=True, style="bold"),
        Column("predicted", [each.predicted for each in worst], words=True),
        Column("images", [count(each.n) for each in worst]),
    ]
    return stacked(columns, width)


def predictions_table(predictions: Sequence[Prediction], width: int) -> RenderableType:
    """One row a picture: its classes by falling probability."""
    places = max((len(prediction.top) for prediction in predictions), default=0)
    columns = [Column("file", [prediction.file for prediction in predictions], words=True, style="bold")]
    columns.append(Column("true", [prediction.label or "" for prediction in predictions], words=True))
    for place in range(places):
        cells = [_guess(prediction, place) for prediction in predictions]
        columns.append(Column(f"top {place + 1}", cells, words=True))
    columns.append(Column("teacher", [p.teacher.label if p.teacher else "" for p in predictions], words=True))
    return stacked(columns, width)


def _guess(prediction: Prediction, place: int) -> str:
    if place >= len(prediction.top):
        return ""
    guess = prediction.top[place]
    return f"{percent(guess.probability, 1):>5}% {guess.label}"


def predictions_csv(predictions: Sequence[Prediction]) -> str:
    """One line for each picture and class, most probable first."""
    header = ("file", "rank", "label", "probability", "true_label", "teacher_label")
    rows = (
        (each.file, rank, guess.label, guess.probability, each.label, each.teacher.label if each.teacher else None)
        for each in predictions
        for rank, guess in enumerate(each.top, start=1)
    )
    return csv_text(header, rows)
